"""The first thing that a worker's process does, before the imports, which take seconds."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def end_on_sigterm() -> None:
    """End with 0 on SIGTERM until the worker has its own handler: nothing is started yet that would have to be ended.

    As process 1 of a container, a program without a handler is not ended by the signal: a pod that is deleted while it
    starts would stay until it is killed, at the end of its grace period.
    """
    signal.signal(signal.SIGTERM, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
