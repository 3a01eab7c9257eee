"""Back-off, throttled logging, the thread lane, the names on the wire, the error texts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.backoff import Backoff
from feedmill.contract import ENCODE, HINT, ROUTES, TOXIC
from feedmill.errors import MAX_DETAIL_CHARS, Outage, Reject, shorten
from feedmill.lane import THREAD_PREFIX, Lane, run_blocking
from feedmill.throttle import ThrottledLog


@given(st.floats(0.01, 10), st.floats(10, 1000))
def test_backoff_grows_to_its_cap_with_jitter(first: float, cap: float) -> None:
    backoff = Backoff(first, cap)
    for failures in range(50):
        ceiling = min(cap, first * 2.0**failures)
        assert ceiling / 2 <= backoff.next() <= ceiling
    backoff.reset()
    assert backoff.next() <= first


def test_backoff_outlives_a_long_night() -> None:
    backoff = Backoff(0.2, 20)
    assert all(backoff.next() <= 20 for _ in range(3000))


def test_floods_are_logged_once_in_a_while(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    throttled = ThrottledLog(logging.getLogger("flood"), interval_seconds=5)
    for _ in range(100):
        throttled.log(logging.WARNING, "a", "message %d%%", 1)
    throttled.log(logging.WARNING, "b", "other")
    now = 6.0
    throttled.log(logging.WARNING, "a", "message %d%%", 2)
    assert [record.getMessage() for record in caplog.records] == [
        "message 1%",
        "other",
        "message 2% (99 more like this since the last line)",
    ]


async def test_a_lane_runs_one_call_at_a_time_in_order() -> None:
    lane = Lane("test")
    running: list[int] = []
    order: list[int] = []

    def call(number: int) -> str:
        running.append(number)
        assert len(running) == 1
        order.append(number)
        running.remove(number)
        return threading.current_thread().name

    names = await asyncio.gather(*(lane.run(call, number) for number in range(20)))
    lane.close()
    assert order == list(range(20))
    assert {name.startswith(THREAD_PREFIX) for name in names} == {True}


async def test_closing_a_lane_does_not_wait_for_a_call_that_hangs() -> None:
    lane = Lane("hung")
    release, started = threading.Event(), threading.Event()

    def hang() -> None:
        started.set()
        release.wait(30)

    hung = asyncio.ensure_future(lane.run(hang))
    queued = asyncio.ensure_future(lane.run(time.monotonic))
    await asyncio.to_thread(started.wait, 30)
    began = time.monotonic()
    lane.close()
    assert time.monotonic() - began < 5
    release.set()
    await hung
    with pytest.raises(asyncio.CancelledError):
        await queued


async def test_errors_of_a_blocking_call_reach_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_blocking(lambda: 1 // 0, "test")  # type: ignore[arg-type, return-value]


def test_the_names_on_the_wire_are_the_contract_s() -> None:
    assert (TOXIC.exchange, TOXIC.queue, TOXIC.result_queue, TOXIC.collection) == (
        "toxic-detect-exchange",
        "toxic-detect-queue",
        "result-detect-queue",
        "comments",
    )
    assert (HINT.exchange, HINT.queue, HINT.result_queue, HINT.collection) == (
        "hint-post-exchange",
        "hint-post-queue",
        "result-hint-post-queue",
        "posts",
    )
    assert (ENCODE.exchange, ENCODE.queue, ENCODE.result_queue, ENCODE.collection) == (
        "encode-post-exchange",
        "encode-post-queue",
        "result-encode-post-queue",
        "posts",
    )
    assert list(ROUTES) == ["toxic", "encode", "hint"]
    assert TOXIC.dead_queue == "toxic-detect-queue.dead"
    assert TOXIC.retry_queue(5) == "toxic-detect-queue.retry.5s"


@given(st.text(st.characters(codec=None), max_size=2000))
def test_details_are_one_short_line_that_can_be_sent(text: str) -> None:
    for line in (shorten(text), Reject("r", text).detail, Outage("d", text).detail):
        assert len(line) <= MAX_DETAIL_CHARS
        assert len(line.splitlines()) <= 1
        line.encode("utf-8")
