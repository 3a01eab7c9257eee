"""Exit codes, signals, and the end of a process whose thread hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest

from feedmill.errors import ModelError, SettingsError
from feedmill.lifecycle import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Shutdown, run_process

EXIT_LIMIT_SECONDS = 30.0
DEFAULTS: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


def code_of(error: BaseException | None) -> int:
    async def main(_: Shutdown) -> None:
        if error is not None:
            raise error

    return run_process(main)


@pytest.mark.parametrize(
    ("error", "code", "has_traceback"),
    [
        (None, EXIT_OK, False),
        (SettingsError("RABBITMQ_URL: expected"), EXIT_USAGE, False),
        (ModelError("no such model"), EXIT_FAILED, False),
        (OSError("probes: can't listen"), EXIT_FAILED, False),
        (ZeroDivisionError("bug"), EXIT_FAILED, True),
        (ExceptionGroup("g", [SettingsError("s")]), EXIT_USAGE, False),
        (ExceptionGroup("g", [ExceptionGroup("g", [ModelError("m")])]), EXIT_FAILED, False),
        (ExceptionGroup("g", [ModelError("m"), SettingsError("s")]), EXIT_USAGE, False),
        (ExceptionGroup("g", [OSError("o"), ZeroDivisionError("bug")]), EXIT_FAILED, True),
    ],
)
def test_exit_codes_and_what_is_logged(
    error: BaseException | None, code: int, has_traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert code_of(error) == code
    assert any(record.exc_info for record in caplog.records) == has_traceback
    if error is not None and not has_traceback:
        assert all(record.getMessage().startswith("stopped: ") for record in caplog.records)
        assert caplog.records[0].levelno == logging.ERROR


@pytest.fixture
def _default_handlers() -> Iterator[None]:
    """Python's, which asyncio leaves behind: a test run may have others, coverage's for one."""
    before = {number: signal.getsignal(number) for number in DEFAULTS}
    for number, handler in DEFAULTS.items():
        signal.signal(number, handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_default_handlers")
def test_the_first_signal_requests_and_the_second_is_urgent() -> None:
    async def main(shutdown: Shutdown) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(shutdown.requested.wait(), 10)
        assert not shutdown.urgent.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(shutdown.urgent.wait(), 10)

    assert run_process(main) == EXIT_OK
    assert {number: signal.getsignal(number) for number in DEFAULTS} == DEFAULTS


def test_what_is_left_of_a_time_counts_from_the_first_request_and_ends_with_the_second() -> None:
    shutdown = Shutdown()
    assert shutdown.seconds_left(25) == 25
    shutdown.request()
    assert 0 < shutdown.seconds_left(25) <= 25
    assert shutdown.seconds_left(0) == 0
    shutdown.request()
    assert shutdown.seconds_left(25) == 0


def run_script(script: str) -> tuple[int, str, float]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        timeout=EXIT_LIMIT_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr, time.monotonic() - began


def test_leave_exits_although_a_model_s_thread_hangs() -> None:
    code, errors, seconds = run_script("""
        import asyncio, logging, threading
        from feedmill.lane import Lane
        from feedmill.lifecycle import leave
        logging.basicConfig()

        async def main():
            lane, started = Lane("infer"), threading.Event()
            def hang():
                started.set()
                threading.Event().wait()
            hung = asyncio.ensure_future(lane.run(hang))
            await asyncio.to_thread(started.wait)
            lane.close()
            hung.cancel()

        asyncio.run(main())
        leave(3)
    """)
    assert code == 3
    assert "still runs" in errors
    assert seconds < EXIT_LIMIT_SECONDS


def test_leave_waits_for_a_thread_that_is_about_to_end() -> None:
    code, errors, _ = run_script("""
        import threading, time
        from feedmill.lane import THREAD_PREFIX
        from feedmill.lifecycle import leave
        threading.Thread(target=time.sleep, args=(0.05,), name=THREAD_PREFIX + "x").start()
        leave(0)
    """)
    assert (code, errors) == (0, "")
