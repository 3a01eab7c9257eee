"""The first thing that a worker's process does, before the imports, which take seconds."""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType

GARBAGE_THRESHOLD = 50_000


def prepare() -> None:
    """Call it before importing anything else."""
    end_on_sigterm()
    # Importing torch and transformers makes a million objects, none of them garbage; Python's default looks for some
    # after each 700: a seventh of the start. Still bounded later: cycles of 50 000 small objects are a few megabytes.
    gc.set_threshold(GARBAGE_THRESHOLD)


def end_on_sigterm() -> None:
    """End with 0 on SIGTERM until the worker has its own handler: nothing is started yet that would have to be ended.

    As process 1 of a container, a program without a handler is not ended by the signal: a pod that is deleted while it
    starts would stay until it is killed, at the end of its grace period.
    """
    signal.signal(signal.SIGTERM, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
