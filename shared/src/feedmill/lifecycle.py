"""From process start to exit code: signals, settings errors, the end of stuck threads."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from feedmill.errors import ModelError, Outage, SettingsError
from feedmill.lane import THREAD_PREFIX

log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
"""A setting is wrong: starting again won't help."""

THREADS_END_SECONDS = 1.0


class Shutdown:
    """``requested`` by the first signal; ``urgent`` by the second."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.urgent = asyncio.Event()
        self._requested_at: float | None = None

    def request(self) -> None:
        if self.requested.is_set():
            self.urgent.set()
        self._requested_at = self._requested_at or time.monotonic()
        self.requested.set()

    def seconds_left(self, of: float) -> float:
        """What is left of ``of`` seconds from the first request; none once the second one came."""
        if self.urgent.is_set():
            return 0.0
        return max(0.0, of - (time.monotonic() - self._requested_at)) if self._requested_at else of

    def listen(self) -> None:
        """Take SIGTERM and SIGINT. Without this, PID 1 in a container would ignore both."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        log.info("%s: %s", signal.Signals(number).name, "again, now" if self.requested.is_set() else "shutting down")
        self.request()


def run_process(main: Callable[[Shutdown], Awaitable[None]]) -> int:
    """Run ``main`` until it ends and answer the process's exit code; what went wrong is logged in a line."""

    async def run() -> None:
        shutdown = Shutdown()
        shutdown.listen()
        await main(shutdown)

    try:
        asyncio.run(run())
    except Exception as error:
        return _report(error)
    return EXIT_OK


_EXPECTED: tuple[tuple[type[Exception], int], ...] = (
    (SettingsError, EXIT_USAGE),
    (ModelError, EXIT_FAILED),
    (Outage, EXIT_FAILED),
    (OSError, EXIT_FAILED),
)


def _report(error: Exception) -> int:
    """Log what ended the process: an expected error in a line, a bug with its traceback."""
    codes = {leaf: _expected_code(leaf) for leaf in _leaves(error)}
    if None in codes.values():
        log.error("stopped by a bug", exc_info=error)
        return EXIT_FAILED
    for leaf in codes:
        log.error("stopped: %s", leaf)
    return max(code for code in codes.values() if code is not None)


def _expected_code(error: BaseException) -> int | None:
    """The exit code of an error that needs no traceback; None for a bug."""
    return next((code for kind, code in _EXPECTED if isinstance(error, kind)), None)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for child in error.exceptions for leaf in _leaves(child)]
    return [error]


def leave(code: int) -> NoReturn:
    """Exit with ``code``, even where a thread hangs in a model: the interpreter would wait for it for ever."""
    deadline = time.monotonic() + THREADS_END_SECONDS
    for thread in threading.enumerate():
        if not thread.name.startswith(THREAD_PREFIX):
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            log.warning("leaving although %s still runs", thread.name)
            logging.shutdown()
            os._exit(code)
    sys.exit(code)
