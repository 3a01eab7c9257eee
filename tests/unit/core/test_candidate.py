"""Hand-over, copies and shadows, with a fake broker session in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.broker import letters
from feedmill.broker.candidate import Forwarder, ShadowSettler, compare
from feedmill.broker.settle import Settler
from feedmill.pipeline.item import Stage
from feedmill.pipeline.pipeline import Pipeline
from feedmill.routing import Routing, RoutingFile
from feedmill.settings import BatchSettings, BrokerSettings, RoutingSettings
from feedmill.worker import routed
from support.fakes import (
    ROUTE,
    FakeSession,
    Published,
    ScriptedHandler,
    make_delivery,
    make_instruments,
    run_virtual,
    turns,
)

CANDIDATE = ROUTE.candidate_queue
BROKER = BrokerSettings(retry_delays_seconds=(1, 2))


class Bench:
    def __init__(self, routing: Routing, settler: Any = None) -> None:
        self.handler = ScriptedHandler()
        self.session = FakeSession()
        self.instruments = make_instruments()
        metrics = self.instruments.metrics
        self.file = RoutingFile("", 1.0, metrics)
        self.file.current = routing
        forwarder = Forwarder(ROUTE, self.file, 60, metrics)
        self.pipeline: Pipeline[Any, Any, Any] = Pipeline(
            self.handler,
            settler(metrics) if settler else Settler(BROKER, ROUTE, forwarder),
            BatchSettings(),
            BROKER.max_body_bytes,
            self.instruments,
            lambda _: None,
        )

    def send(self, name: str, headers: dict[str, Any] | None = None, **body: Any) -> None:
        self.pipeline.take(self.session.delivery({"name": name, "_id": name, **body}, headers=headers))

    @property
    def outcomes(self) -> dict[str, int]:
        return self.instruments.metrics.outcomes

    def to(self, queue: str) -> list[Published]:
        return [letter for letter in self.session.published if letter.routing_key == queue]


@asynccontextmanager
async def bench(routing: Routing, settler: Any = None) -> AsyncIterator[Bench]:
    it = Bench(routing, settler)
    running = asyncio.create_task(it.pipeline.run())
    try:
        yield it
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


ALL = Routing("share", 100.0)


def test_a_handed_over_message_is_confirmed_before_its_ack_and_not_handled() -> None:
    async def main(_: Any) -> None:
        async with bench(ALL) as it:
            it.send("m", headers={"traceparent": "00-a-b-01", "shop": "7"})
            await it.pipeline.until_idle()
            assert it.session.log == [("publish", CANDIDATE), ("ack", 1)]
            assert it.handler.calls == []
            assert it.outcomes == {"handed_over": 1}
            (letter,) = it.to(CANDIDATE)
            assert letter.exchange == ""
            assert letter.json == {"name": "m", "_id": "m"}
            assert letter.properties.headers["shop"] == "7"
            assert letter.properties.headers["traceparent"] == "00-a-b-01"
            assert letter.properties.delivery_mode == 2

    run_virtual(main)


def test_a_result_has_the_same_id_whoever_publishes_it() -> None:
    delivery = make_delivery(b'{"_id": "m"}')
    handed = letters.handed_over_properties(ROUTE, delivery)
    at_candidate = replace(delivery, properties=handed)
    route = routed(ROUTE, RoutingSettings(role="candidate"))
    assert route.consumed == CANDIDATE
    assert letters.result_message_id(route, at_candidate) == letters.result_message_id(ROUTE, delivery)


def test_where_no_queue_takes_it_the_stable_worker_handles_the_message() -> None:
    async def main(_: Any) -> None:
        async with bench(ALL) as it:
            it.session.unroutable.add(CANDIDATE)
            for number in range(5):
                it.send(f"m{number}")
            await it.pipeline.until_idle()
            assert len(it.session.results()) == 5
            assert sorted(it.session.acked) == [1, 2, 3, 4, 5]
            assert it.outcomes == {"answered": 5}

    run_virtual(main)


def test_a_bug_in_the_hand_over_costs_no_message() -> None:
    async def main(_: Any) -> None:
        async with bench(ALL) as it:

            async def broken(letter: Published) -> None:
                if letter.routing_key == CANDIDATE:
                    raise ZeroDivisionError

            it.session.on_publish = broken
            it.send("m")
            await it.pipeline.until_idle()
            assert it.outcomes == {"answered": 1}

    run_virtual(main)


def test_a_session_lost_during_the_hand_over_settles_nothing() -> None:
    async def main(_: Any) -> None:
        async with bench(ALL) as it:

            async def lost(_: Published) -> None:
                it.session.fail("connection_closed")

            it.session.on_publish = lost
            it.send("m")
            await it.pipeline.until_idle()
            assert (it.session.acked, it.session.returned, it.outcomes) == ([], [], {"lost": 1})

    run_virtual(main)


def test_what_has_failed_before_and_what_is_bad_is_not_handed_over() -> None:
    async def main(_: Any) -> None:
        async with bench(ALL) as it:
            it.send("again", headers={letters.ATTEMPT: 1})
            it.pipeline.take(it.session.delivery(b"no json"))
            await it.pipeline.until_idle()
            assert it.to(CANDIDATE) == []
            assert it.outcomes == {"answered": 1, "dead": 1}

    run_virtual(main)


def test_a_drain_waits_for_a_hand_over_and_for_its_fallback() -> None:
    async def main(_: Any) -> None:
        async with bench(ALL) as it:
            confirm = asyncio.Event()

            async def slow(letter: Published) -> None:
                if letter.routing_key == CANDIDATE:
                    await confirm.wait()

            it.session.on_publish = slow
            it.session.unroutable.add(CANDIDATE)
            it.send("m")
            await turns()
            it.pipeline.close_intake()
            await it.pipeline.hand_back(Stage.WAITING)
            assert it.session.returned == []
            confirm.set()
            await it.pipeline.until_idle()
            assert it.outcomes == {"answered": 1}

    run_virtual(main)


def test_a_mirror_sends_the_verdict_with_a_copy_before_the_ack() -> None:
    async def main(_: Any) -> None:
        async with bench(Routing("mirror")) as it:
            it.send("m")
            await it.pipeline.until_idle()
            assert sorted(it.session.log[:2]) == [("publish", CANDIDATE), ("publish", ROUTE.result_queue)]
            assert it.session.log[2] == ("ack", 1)
            (copy,) = it.to(CANDIDATE)
            assert letters.is_copy(copy.properties)
            assert copy.properties.expiration == "60000"
            assert copy.properties.message_id != it.to(ROUTE.result_queue)[0].properties.message_id

    run_virtual(main)


def test_a_copy_that_no_queue_takes_is_no_failure() -> None:
    async def main(_: Any) -> None:
        async with bench(Routing("mirror")) as it:
            it.session.unroutable.add(CANDIDATE)
            it.send("m")
            await it.pipeline.until_idle()
            assert it.outcomes == {"answered": 1}

    run_virtual(main)


def test_whatever_fails_at_a_candidate_goes_back_to_the_stable_worker() -> None:
    route = routed(ROUTE, RoutingSettings(role="candidate"))

    async def main(_: Any) -> None:
        async with bench(Routing(), lambda _: Settler(BROKER, route, is_candidate=True)) as it:
            it.send("broken", fail_in="infer", how="answer-reject")
            it.send("later", fail_in="infer", how="answer-retry")
            it.send("fine")
            await it.pipeline.until_idle()
            back = it.to(ROUTE.retry_queue(1))
            assert [letter.properties.headers[letters.ATTEMPT] for letter in back] == [1, 1]
            assert it.session.dead() == []
            assert it.outcomes == {"answered": 1, "given_back": 2}

    run_virtual(main)


def test_what_may_have_ended_a_candidate_goes_back_and_a_copy_is_dropped() -> None:
    suspect = {"x-delivery-count": 3}

    async def main(_: Any) -> None:
        candidate = routed(ROUTE, RoutingSettings(role="candidate"))
        async with bench(Routing(), lambda _: Settler(BROKER, candidate, is_candidate=True)) as it:
            for headers in (suspect, suspect | {letters.VERDICT: "{}"}):
                it.pipeline.take(it.session.delivery({"name": "m"}, headers=headers, redelivered=True))
            await it.pipeline.until_idle()
            (back,) = it.session.published
            assert back.routing_key == ROUTE.retry_queue(1)
            assert it.outcomes == {"given_back": 1, "handed_over": 1}
            assert it.handler.calls == []
        shadow = routed(ROUTE, RoutingSettings(role="shadow"))
        async with bench(Routing(), lambda metrics: ShadowSettler(shadow, metrics)) as it:
            headers = suspect | {letters.VERDICT: "{}"}
            it.pipeline.take(it.session.delivery({"name": "m"}, headers=headers, redelivered=True))
            await it.pipeline.until_idle()
            assert it.session.published == []
            assert it.outcomes == {"dropped": 1}

    run_virtual(main)


def test_a_shadow_publishes_nothing_and_gives_up_in_the_end() -> None:
    route = routed(ROUTE, RoutingSettings(role="shadow"))

    async def main(_: Any) -> None:
        async with bench(Routing(), lambda metrics: ShadowSettler(route, metrics)) as it:
            it.send("fine", headers={letters.VERDICT: "{}"})
            it.send("bad", {letters.VERDICT: "{}"}, fail_in="infer", how="answer-reject")
            it.send("later", {letters.VERDICT: '{"a": 1}'}, fail_in="infer", how="answer-retry")
            it.send("last", {letters.ATTEMPT: 5, letters.VERDICT: "{}"}, fail_in="infer", how="answer-retry")
            await it.pipeline.until_idle()
            (again,) = it.session.published
            assert again.routing_key == CANDIDATE
            assert again.properties.headers[letters.VERDICT] == '{"a": 1}'
            assert it.outcomes == {"answered": 1, "dropped": 2, "retried": 1}

    run_virtual(main)


def test_a_shadow_gives_back_what_is_no_copy_and_a_candidate_drops_copies() -> None:
    """What an earlier step of the rollout left in the queue."""

    async def main(_: Any) -> None:
        shadow = routed(ROUTE, RoutingSettings(role="shadow"))
        async with bench(Routing(), lambda metrics: ShadowSettler(shadow, metrics)) as it:
            it.send("real", headers={letters.ATTEMPT: 2})
            await it.pipeline.until_idle()
            assert it.session.log == [("publish", ROUTE.queue), ("ack", 1)]
            assert it.session.published[0].properties.headers[letters.ATTEMPT] == 2
            it.session.unroutable.add(ROUTE.queue)
            it.send("real too")
            await it.pipeline.until_idle()
            assert it.session.acked == [1]
            assert it.session.is_lost
            assert it.handler.calls == []
        candidate = routed(ROUTE, RoutingSettings(role="candidate"))
        async with bench(Routing(), lambda _: Settler(BROKER, candidate, is_candidate=True)) as it:
            it.send("copy", headers={letters.VERDICT: "{}"})
            await it.pipeline.until_idle()
            assert it.session.log == [("ack", 1)]
            assert it.handler.calls == []

    run_virtual(main)


@pytest.mark.parametrize(
    ("header", "result", "expected"),
    [
        ({"isToxic": True, "labels": {"a": 0.5}}, {"isToxic": True, "labels": {"a": 0.75}}, ("same", 0.25)),
        (
            {"isToxic": False, "labels": {"a": 0.5, "b": 0}},
            {"isToxic": True, "labels": {"b": 1, "c": 0}},
            ("different", 1),
        ),
        ({"isToxic": False, "labels": {"a": True}}, {"isToxic": False, "labels": {"a": 1}}, ("same", None)),
        ({"space": "x"}, {"space": "y"}, ("unknown", None)),
    ],
)
def test_verdicts_are_compared(header: dict[str, Any], result: dict[str, Any], expected: tuple[str, float]) -> None:
    delivery = make_delivery(headers={letters.VERDICT: json.dumps(header)})
    assert compare(delivery, result) == expected


@pytest.mark.parametrize("header", ["{", "[]", 7, "x" * 9000, None])
def test_a_verdict_that_cannot_be_read_compares_as_unknown(header: Any) -> None:
    delivery = make_delivery(headers={letters.VERDICT: header})
    assert compare(delivery, {"isToxic": True, "labels": {}}) == ("unknown", None)


SCORES = st.dictionaries(st.sampled_from("abc"), st.floats(0, 1), max_size=3)
LABELS = st.none() | st.dictionaries(
    st.sampled_from("abc"), st.floats(0, 1) | st.booleans() | st.none() | st.text(max_size=2), max_size=3
)
RESULTS = st.fixed_dictionaries(
    {}, optional={"isToxic": st.booleans() | st.none() | st.integers(0, 1), "labels": LABELS}
)


@given(theirs=RESULTS, ours=st.fixed_dictionaries({"isToxic": st.booleans(), "labels": SCORES}))
def test_any_two_verdicts_are_compared(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    verdict, drift = compare(make_delivery(headers={letters.VERDICT: json.dumps(theirs)}), ours)
    if isinstance(theirs.get("isToxic"), bool):
        assert verdict == ("same" if theirs["isToxic"] == ours["isToxic"] else "different")
    else:
        assert (verdict, drift) == ("unknown", None)
    assert drift is None or 0 <= drift <= 1
    assert compare(make_delivery(headers={letters.VERDICT: json.dumps(ours)}), ours)[1] in (None, 0)
