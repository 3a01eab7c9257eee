"""SIGINT, SIGTERM and SIGHUP as a request to stop in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from feedmill.lifecycle import EXIT_FAILED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IMPATIENT_AFTER = 3


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first signal sets. The third ends the process at once: what must not outlive it is killed then.

    Only for the main thread of a command.
    """
    stop = threading.Event()
    seen = 0

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a handler)
        nonlocal seen
        seen += 1
        if seen >= IMPATIENT_AFTER:
            os._exit(EXIT_FAILED)
        stop.set()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
