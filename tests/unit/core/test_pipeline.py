"""The pipeline with a fake broker session and a scripted handler, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.broker.settle import Settler
from feedmill.errors import Outage
from feedmill.pipeline.item import Stage
from feedmill.pipeline.pipeline import Pipeline
from feedmill.settings import BatchSettings, BrokerSettings
from support.fakes import (
    ROUTE,
    FakeSession,
    Published,
    ScriptedHandler,
    VirtualLoop,
    make_instruments,
    run_virtual,
    turns,
    until,
)

RETRY_QUEUE = ROUTE.retry_queue(1)


class Bench:
    """A pipeline, what it works with, and what came of it."""

    def __init__(self, lanes: int = 1, max_result_bytes: int = 16_777_216, **batch: Any) -> None:
        self.handler = ScriptedHandler(lanes=lanes)
        self.session = FakeSession()
        self.outages: list[Outage] = []
        self.instruments = make_instruments()
        broker = BrokerSettings(retry_delays_seconds=(1, 2), max_result_bytes=max_result_bytes)
        self.pipeline: Pipeline[Any, Any, Any] = Pipeline(
            self.handler,
            Settler(broker, ROUTE),
            BatchSettings(**batch),
            broker.max_body_bytes,
            self.instruments,
            self.outages.append,
        )

    def send(self, name: str, **body: Any) -> None:
        self.pipeline.take(self.session.delivery({"name": name, **body}))

    @property
    def answered(self) -> list[str]:
        return [result["name"] for result in self.session.results()]

    @property
    def outcomes(self) -> dict[str, int]:
        return self.instruments.metrics.outcomes


@asynccontextmanager
async def bench(lanes: int = 1, **batch: Any) -> AsyncIterator[Bench]:
    it = Bench(lanes, **batch)
    running = asyncio.create_task(it.pipeline.run())
    try:
        yield it
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


def virtually(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test in virtual time; it fails where a task is left behind."""

    def run() -> None:
        run_virtual(lambda _: test())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


# ---- the straight way


@virtually
async def test_every_message_is_answered_and_acked_after_its_confirm() -> None:
    async with bench() as it:
        for number in range(10):
            it.send(f"m{number}")
        await it.pipeline.until_idle()
        assert sorted(it.answered) == [f"m{number}" for number in range(10)]
        assert sorted(it.session.acked) == list(range(1, 11))
        assert it.session.returned == []
        assert it.outcomes == {"answered": 10}


@virtually
async def test_nothing_is_acked_before_its_confirm() -> None:
    async with bench() as it:
        confirm = asyncio.Event()

        async def wait(_: Published) -> None:
            await confirm.wait()

        it.session.on_publish = wait
        it.send("m")
        await turns(50)
        assert it.session.acked == []
        assert it.pipeline.in_flight == 1
        confirm.set()
        await it.pipeline.until_idle()
        assert it.session.log == [("publish", ROUTE.result_queue), ("ack", 1)]


@virtually
async def test_until_idle_waits_for_the_acks_themselves() -> None:
    """A drain that went on before would close the connection over acks that are not sent: all would come again."""
    async with bench() as it:
        sent = asyncio.Event()
        it.session.on_settle = sent.wait
        it.send("m")
        idle = asyncio.create_task(it.pipeline.until_idle())
        await turns(50)
        assert not idle.done()
        sent.set()
        await idle
        assert it.session.acked == [1]


@virtually
async def test_confirms_of_a_batch_are_awaited_together() -> None:
    async with bench() as it:
        it.handler.gates["infer"] = asyncio.Event()
        waiting: set[bytes] = set()
        confirm = asyncio.Event()

        async def wait(letter: Published) -> None:
            waiting.add(letter.body)
            await confirm.wait()

        it.session.on_publish = wait
        for number in range(5):
            it.send(f"m{number}")
        it.handler.gates["infer"].set()
        await until(lambda: len(waiting) == 5, "five publishes in flight")
        confirm.set()
        await it.pipeline.until_idle()


@virtually
async def test_request_ids_and_trace_come_back_on_the_result() -> None:
    async with bench() as it:
        headers = {"traceparent": "00-1-2-01", "x-custom": "stays here"}
        delivery = it.session.delivery({"name": "m"}, correlation_id="c", message_id="i", headers=headers)
        it.pipeline.take(delivery)
        await it.pipeline.until_idle()
        properties = it.session.published[0].properties
        assert (properties.correlation_id, properties.message_id) == ("c", "i")
        assert properties.headers == {"traceparent": "00-1-2-01"}


# ---- one bad message never takes its neighbours with it


@pytest.mark.parametrize("step", ["decode", "prepare", "infer", "commit"])
@pytest.mark.parametrize(
    ("how", "queue"),
    [
        ("reject", ROUTE.dead_queue),
        ("retry", RETRY_QUEUE),
        ("crash", RETRY_QUEUE),
        ("answer-reject", ROUTE.dead_queue),
        ("answer-retry", RETRY_QUEUE),
    ],
)
def test_a_failure_concerns_its_own_message_alone(step: str, how: str, queue: str) -> None:
    if step == "decode" and how.startswith("answer-"):
        return  # decode takes one message: it has nothing to answer for others

    async def main(_: VirtualLoop) -> None:
        async with bench() as it:
            for number in range(7):
                it.send(f"m{number}")
            it.send("bad", fail_in=step, how=how)
            await it.pipeline.until_idle()
            assert sorted(it.answered) == [f"m{number}" for number in range(7)]
            assert [letter.routing_key for letter in it.session.published if letter.exchange == ""] == [queue]
            assert sorted(it.session.acked) == list(range(1, 9))

    run_virtual(main)


@pytest.mark.parametrize(
    "body", [b"", b"nope", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"a":NaN}', b"\xef\xbb\xbf{}", b"x" * 2_000_000]
)
def test_what_is_no_object_is_a_dead_letter_with_its_body_whole(body: bytes) -> None:
    async def main(_: VirtualLoop) -> None:
        async with bench() as it:
            it.pipeline.take(it.session.delivery(body))
            it.send("good")
            await it.pipeline.until_idle()
            assert [letter.body for letter in it.session.dead()] == [body]
            assert it.answered == ["good"]
            assert sorted(it.session.acked) == [1, 2]

    run_virtual(main)


@virtually
async def test_the_last_attempt_ends_among_the_dead() -> None:
    async with bench() as it:
        body = {"name": "m", "fail_in": "infer", "how": "answer-retry"}
        it.pipeline.take(it.session.delivery(body, headers={"x-feedmill-attempt": 1}))
        it.pipeline.take(it.session.delivery(body, headers={"x-feedmill-attempt": 2}))
        await it.pipeline.until_idle()
        assert sorted(letter.routing_key for letter in it.session.published) == [ROUTE.dead_queue, ROUTE.retry_queue(2)]
        assert it.outcomes == {"retried": 1, "dead": 1}


@pytest.mark.parametrize(
    ("count", "is_alone", "queue", "outcome"),
    [
        (2, False, ROUTE.result_queue, "answered"),
        (3, False, ROUTE.alone_queue, "set_apart"),
        (19, False, ROUTE.alone_queue, "set_apart"),
        (2, True, ROUTE.result_queue, "answered"),
        (3, True, ROUTE.dead_queue, "dead"),
    ],
)
def test_what_came_back_too_often_is_set_apart_then_buried(
    count: int, is_alone: bool, queue: str, outcome: str
) -> None:
    async def main(_: VirtualLoop) -> None:
        async with bench() as it:
            headers = {"x-delivery-count": count, "x-feedmill-attempt": 1, "kept": "yes"}
            it.pipeline.take(
                it.session.delivery({"name": "m"}, headers=headers, redelivered=True, is_alone=is_alone, message_id="i")
            )
            it.send("good")
            await it.pipeline.until_idle()
            letter = next(letter for letter in it.session.published if letter.properties.message_id == "i")
            assert letter.routing_key == queue
            if queue == ROUTE.alone_queue:
                assert letter.properties.headers["x-feedmill-attempt"] == 1
                assert letter.properties.headers["kept"] == "yes"
                assert "x-delivery-count" not in letter.properties.headers
            assert it.outcomes == ({"answered": 2} if outcome == "answered" else {outcome: 1, "answered": 1})
            assert sorted(it.session.acked) == [1, 2]

    run_virtual(main)


@virtually
async def test_the_queue_for_what_is_suspect_is_made_when_it_is_needed() -> None:
    async with bench() as it:
        it.session.unroutable.add(ROUTE.alone_queue)

        async def declare() -> None:
            it.session.unroutable.clear()

        it.session.declare_alone = declare  # type: ignore[method-assign]
        it.pipeline.take(it.session.delivery({"name": "m"}, headers={"x-delivery-count": 3}, redelivered=True))
        await it.pipeline.until_idle()
        assert it.session.log == [("publish", ROUTE.alone_queue), ("ack", 1)]


@virtually
async def test_where_that_queue_cannot_be_had_the_message_is_tried_again_later() -> None:
    async with bench() as it:
        it.session.unroutable.add(ROUTE.alone_queue)
        it.pipeline.take(it.session.delivery({"name": "m"}, headers={"x-delivery-count": 3}, redelivered=True))
        await it.pipeline.until_idle()
        assert it.session.log == [("publish", RETRY_QUEUE), ("ack", 1)]


@pytest.mark.parametrize(("is_alone", "queue"), [(False, ROUTE.queue), (True, ROUTE.alone_queue)])
def test_a_hand_back_is_a_new_message_before_it_makes_one_suspect(is_alone: bool, queue: str) -> None:
    async def main(_: VirtualLoop) -> None:
        async with bench() as it:
            it.handler.gates["infer"] = asyncio.Event()
            for count in (0, 1, 2):
                headers = {"x-delivery-count": count}
                it.pipeline.take(
                    it.session.delivery({"name": "m"}, headers=headers, redelivered=count > 0, is_alone=is_alone)
                )
            await turns()
            await it.pipeline.hand_back(Stage.STARTED)
            assert it.session.log == [("publish", queue), ("ack", 3), ("return", 2), ("return", 1)]

    run_virtual(main)


@virtually
async def test_a_result_that_no_queue_takes_is_retried_after_one_repair() -> None:
    async with bench() as it:
        it.session.unroutable.add(ROUTE.result_queue)
        it.send("m")
        await it.pipeline.until_idle()
        assert it.session.repaired == 1
        assert [letter.routing_key for letter in it.session.published] == [RETRY_QUEUE]
        assert it.session.acked == [1]


@virtually
async def test_a_failure_that_no_queue_takes_ends_the_session_rather_than_lose_the_message() -> None:
    async with bench() as it:
        it.session.unroutable.add(ROUTE.dead_queue)
        it.send("m", fail_in="prepare", how="reject")
        await it.pipeline.until_idle()
        assert it.session.acked == []
        assert it.session.lost.result().cause == "undeliverable"
        assert it.outcomes == {"lost": 1}


@virtually
async def test_a_result_that_cant_be_encoded_is_that_message_s_failure_alone() -> None:
    async with bench() as it:

        async def commit(batch: Any) -> Any:
            return [{"name": object() if job.name == "bad" else output} for job, output in batch]

        it.handler.commit = commit
        it.send("good")
        it.send("bad")
        await it.pipeline.until_idle()
        assert it.answered == ["good"]
        assert it.outcomes == {"answered": 1, "retried": 1}


@virtually
async def test_a_result_that_cant_be_sent_is_that_message_s_failure_alone() -> None:
    async with bench() as it:

        async def refuse(letter: Published) -> None:
            if letter.routing_key == ROUTE.result_queue and letter.json["name"] == "bad":
                raise ValueError("a property that can't be encoded")

        it.session.on_publish = refuse
        for name in ("a", "bad", "b"):
            it.send(name)
        await it.pipeline.until_idle()
        assert {"a", "b"} == set(it.answered)
        assert it.outcomes == {"answered": 2, "retried": 1}


@virtually
async def test_a_result_that_is_too_large_is_a_dead_letter() -> None:
    async with bench(max_result_bytes=1024) as it:
        it.send("m")
        it.send("m" * 2000)
        await it.pipeline.until_idle()
        assert it.answered == ["m"]
        assert it.outcomes == {"answered": 1, "dead": 1}


@virtually
async def test_a_failure_that_cant_be_published_ends_the_session_and_not_the_worker() -> None:
    async with bench() as it:

        async def broken(_: Published) -> None:
            raise TypeError("can't be encoded")

        it.session.on_publish = broken
        it.send("m")
        it.send("bad", fail_in="prepare", how="reject")
        await it.pipeline.until_idle()
        assert it.session.acked == []
        assert it.session.is_lost
        it.session = FakeSession()
        it.send("next")
        await it.pipeline.until_idle()
        assert it.answered == ["next"]


@virtually
async def test_an_answer_of_none_is_an_answer() -> None:
    async with bench() as it:
        seen: list[Any] = []

        async def infer(batch: Any) -> Any:
            return [None for _ in batch]

        async def commit(batch: Any) -> Any:
            seen.extend(output for _, output in batch)
            return [{"name": job.name} for job, _ in batch]

        it.handler.infer = infer
        it.handler.commit = commit
        it.send("m")
        await it.pipeline.until_idle()
        assert seen == [None]
        assert it.answered == ["m"]


# ---- outages, lost sessions, handing back


@pytest.mark.parametrize("step", ["prepare", "infer", "commit"])
def test_an_outage_leaves_its_messages_to_be_handed_back(step: str) -> None:
    async def main(_: VirtualLoop) -> None:
        async with bench() as it:
            it.send("m1")
            it.send("m2", fail_in=step, how="outage")
            await until(lambda: bool(it.outages), "an outage")
            await turns(50)
            assert it.outages[0].dependency == "database"
            assert it.pipeline.in_flight == 2
            assert it.session.log == []
            await it.pipeline.hand_back(Stage.STARTED)
            assert it.session.returned == [2, 1], "newest first, so that the queue keeps its order"
            assert it.pipeline.in_flight == 0
            it.send("m3")
            await it.pipeline.until_idle()
            assert it.answered == ["m3"]

    run_virtual(main)


@pytest.mark.parametrize("step", ["prepare", "infer", "commit"])
def test_messages_of_a_lost_session_are_void(step: str) -> None:
    async def main(_: VirtualLoop) -> None:
        async with bench() as it:
            gate = it.handler.gates[step] = asyncio.Event()
            it.send("old")
            await until(lambda: bool(it.handler.batches(step)), step)
            old, it.session = it.session, FakeSession()
            it.send("new")
            it.pipeline.forget(old)
            assert it.pipeline.in_flight == 1
            gate.set()
            await it.pipeline.until_idle()
            assert old.log == []
            assert it.answered == ["new"]
            assert it.outcomes == {"lost": 1, "answered": 1}

    run_virtual(main)


@virtually
async def test_a_message_whose_session_is_lost_during_its_publish_is_never_acked() -> None:
    async with bench() as it:

        async def lose(_: Published) -> None:
            it.session.fail("cut")

        it.session.on_publish = lose
        it.send("m")
        it.send("bad", fail_in="prepare", how="reject")
        await it.pipeline.until_idle()
        assert it.session.acked == []
        assert it.outcomes == {"lost": 2}


@virtually
async def test_hand_back_goes_by_stage() -> None:
    async with bench(max_batch_items=1) as it:
        it.handler.gates["infer"] = asyncio.Event()
        it.send("started")
        await until(lambda: it.handler.batches("infer") == [["started"]], "infer")
        it.send("waiting")
        await turns()
        await it.pipeline.hand_back(Stage.WAITING)
        assert it.session.returned == [2]
        it.handler.gates["infer"].set()
        await it.pipeline.until_idle()
        assert it.answered == ["started"]


@virtually
async def test_hand_back_during_a_publish_settles_once() -> None:
    async with bench() as it:
        confirm = asyncio.Event()

        async def wait(_: Published) -> None:
            await confirm.wait()

        it.session.on_publish = wait
        it.send("m")
        await turns(50)
        await it.pipeline.hand_back(Stage.SETTLING)
        confirm.set()
        await turns(50)
        assert it.session.log == [("return", 1), ("publish", ROUTE.result_queue)]


@virtually
async def test_what_arrives_after_close_is_handed_back() -> None:
    async with bench() as it:
        it.pipeline.close_intake()
        it.send("late")
        await it.pipeline.until_idle()
        assert it.session.log == [("return", 1)]
        assert it.handler.calls == []


# ---- batching


@virtually
async def test_batching_takes_what_is_there_up_to_the_item_limit() -> None:
    async with bench(max_batch_items=3) as it:
        it.handler.gates["infer"] = asyncio.Event()
        it.send("first")
        await until(lambda: bool(it.handler.batches("infer")), "infer")
        for number in range(4):
            it.send(f"m{number}")
        await turns(50)
        it.handler.gates["infer"].set()
        await it.pipeline.until_idle()
        assert it.handler.batches("infer") == [["first"], ["m0", "m1", "m2"], ["m3"]]


@virtually
async def test_a_batch_keeps_to_the_token_limit_and_a_longer_text_goes_alone() -> None:
    async with bench(max_batch_tokens=16) as it:
        gate = it.handler.gates["infer"] = asyncio.Event()
        it.send("first")
        await until(lambda: bool(it.handler.batches("infer")), "infer")
        for name, cost in (("a", 8), ("b", 8), ("c", 1), ("huge", 500), ("d", 16), ("e", 1)):
            it.send(name, cost=cost)
        await turns(50)
        gate.set()
        await it.pipeline.until_idle()
        assert it.handler.batches("infer") == [["first"], ["a", "b"], ["c"], ["huge"], ["d"], ["e"]]


@virtually
async def test_one_batch_is_in_the_model_while_the_one_before_is_written() -> None:
    async with bench(max_batch_items=1) as it:
        it.handler.gates["commit"] = asyncio.Event()
        it.send("one")
        it.send("two")
        await until(lambda: it.handler.batches("infer") == [["one"], ["two"]], "the second batch in the model")
        assert it.handler.batches("commit") == [["one"]]
        assert it.answered == []
        it.handler.gates["commit"].set()
        await it.pipeline.until_idle()
        assert it.answered == ["one", "two"]


@virtually
async def test_one_batch_is_written_while_the_one_before_is_published() -> None:
    async with bench(max_batch_items=1) as it:
        confirm = asyncio.Event()

        async def wait(_: Published) -> None:
            await confirm.wait()

        it.session.on_publish = wait
        it.send("one")
        it.send("two")
        await until(lambda: it.handler.batches("commit") == [["one"], ["two"]], "the second batch written")
        assert it.session.acked == []
        confirm.set()
        await it.pipeline.until_idle()
        assert it.answered == ["one", "two"]


@virtually
async def test_a_single_message_waits_for_nothing() -> None:
    """With a batch far from full, no timer stands between a message and its answer."""
    async with bench(max_batch_items=64, max_batch_tokens=4096) as it:
        await asyncio.sleep(3600)
        before = asyncio.get_running_loop().time()
        it.send("m")
        await it.pipeline.until_idle()
        assert it.answered == ["m"]
        assert asyncio.get_running_loop().time() == before, "not a moment has passed"


@virtually
async def test_the_model_never_runs_far_ahead_of_the_writes() -> None:
    async with bench(max_batch_items=1) as it:
        it.handler.gates["commit"] = asyncio.Event()
        for number in range(20):
            it.send(f"m{number}")
        await turns(200)
        assert len(it.handler.batches("infer")) == 6, "one in commit, four waiting, one at the door"
        it.handler.gates["commit"].set()
        await it.pipeline.until_idle()
        assert len(it.answered) == 20


@virtually
async def test_what_is_through_the_model_meanwhile_is_written_together() -> None:
    async with bench(max_batch_items=3, max_batch_tokens=1) as it:
        it.handler.gates["commit"] = asyncio.Event()
        for number in range(6):
            it.send(f"m{number}")
        await until(lambda: len(it.handler.batches("infer")) == 5, "four wait behind the first")
        await turns()
        it.handler.gates["commit"].set()
        await it.pipeline.until_idle()
        assert it.handler.batches("commit") == [["m0"], ["m1", "m2", "m3"], ["m4", "m5"]]
        assert it.answered == [f"m{number}" for number in range(6)]


@virtually
async def test_what_is_not_through_the_model_holds_up_no_writes() -> None:
    async with bench(lanes=2, max_batch_tokens=1) as it:
        slow = asyncio.Event()

        async def infer(batch: Any) -> Any:
            it.handler.calls.append(("infer", [job.name for job in batch]))
            if batch[0].name == "slow":
                await slow.wait()
            return [job.name for job in batch]

        it.handler.infer = infer  # type: ignore[method-assign]
        for name in ("quick", "slow", "behind"):
            it.send(name)
        await until(lambda: it.handler.batches("commit") == [["quick"]], "the quick one alone")
        await turns()
        slow.set()
        await it.pipeline.until_idle()
        assert it.handler.batches("commit") == [["quick"], ["slow", "behind"]]


@virtually
async def test_nothing_is_prepared_while_a_whole_batch_waits_for_the_model() -> None:
    async with bench(max_batch_items=4) as it:
        it.handler.gates["infer"] = asyncio.Event()
        it.send("first")
        await until(lambda: it.handler.batches("infer") == [["first"]], "the lane is taken")
        for number in range(6):
            it.send(f"m{number}")
            await turns()
        prepared = [["first"], ["m0"], ["m1"], ["m2"], ["m3"]]
        assert it.handler.batches("prepare") == prepared
        it.handler.gates["infer"].set()
        await it.pipeline.until_idle()
        assert it.handler.batches("prepare") == [*prepared, ["m4", "m5"]]
        assert it.handler.batches("infer") == [["first"], ["m0", "m1", "m2", "m3"], ["m4", "m5"]]


@virtually
async def test_the_model_says_how_many_tokens_a_batch_has_where_the_settings_do_not() -> None:
    async with bench() as it:
        it.handler.gates["infer"] = asyncio.Event()
        it.send("first", cost=1)
        await until(lambda: it.handler.batches("infer") == [["first"]], "the lane is taken")
        for number in range(3):
            it.send(f"m{number}", cost=500)
        it.handler.gates["infer"].set()
        await it.pipeline.until_idle()
        assert it.handler.batches("infer") == [["first"], ["m0", "m1"], ["m2"]]


@virtually
async def test_an_idle_pipeline_does_nothing() -> None:
    async with bench() as it:
        before = asyncio.get_running_loop().time()
        it.send("m")
        await it.pipeline.until_idle()
        await asyncio.sleep(3600)
        assert it.handler.calls == [("prepare", ["m"]), ("infer", ["m"]), ("commit", ["m"])]
        assert asyncio.get_running_loop().time() == before + 3600, "no timer of ours ran meanwhile"


# ---- every message is settled exactly once, whatever happens


@virtually
async def test_lanes_run_side_by_side_and_batches_are_written_in_order() -> None:
    async with bench(lanes=2, max_batch_items=1) as it:
        gates = {name: asyncio.Event() for name in ("first", "second", "third")}

        async def infer(batch: Any) -> Any:
            it.handler.calls.append(("infer", [job.name for job in batch]))
            await gates[batch[0].name].wait()
            return [job.name for job in batch]

        it.handler.infer = infer  # type: ignore[method-assign]
        for name in gates:
            it.send(name)
        await until(lambda: it.handler.batches("infer") == [["first"], ["second"]], "two lanes")
        await turns()
        assert len(it.handler.batches("infer")) == 2, "no third lane"
        gates["second"].set()  # the later one is done first, and waits for the earlier one
        await until(lambda: len(it.handler.batches("infer")) == 3, "the freed lane takes the next")
        assert it.handler.batches("commit") == []
        gates["first"].set()
        gates["third"].set()
        await it.pipeline.until_idle()
        assert it.handler.batches("commit") == [["first"], ["second"], ["third"]]


STEPS = st.sampled_from(["", "", "decode", "prepare", "infer", "commit"])
FAILURE = st.sampled_from(["reject", "retry", "crash", "outage", "answer-reject", "answer-retry"])
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), STEPS, FAILURE, st.integers(1, 40)),
        st.tuples(st.just("lose")),
        st.tuples(st.just("hand_back"), st.sampled_from(list(Stage))),
        st.tuples(st.just("turns"), st.integers(1, 30)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(events=EVENTS, delays=st.lists(st.integers(0, 6), min_size=1, max_size=8), items=st.integers(1, 5))
def test_every_message_is_settled_exactly_once(events: list[Any], delays: list[int], items: int) -> None:
    logging.disable(logging.CRITICAL)
    try:
        run_virtual(lambda _: _play(events, delays, items))
    finally:
        logging.disable(logging.NOTSET)


async def _play(events: list[Any], delays: list[int], items: int) -> None:
    sessions: list[FakeSession] = []
    sent = 0

    async def dawdle(*_: object) -> None:
        nonlocal sent
        await turns(delays[(sent + len(sessions)) % len(delays)])

    def open_session(it: Bench) -> None:
        it.session = FakeSession()
        it.session.on_publish = it.session.on_settle = dawdle
        sessions.append(it.session)

    async with bench(max_batch_items=items, max_batch_tokens=64) as it:
        it.handler.pause = dawdle
        open_session(it)
        for event in events:
            match event:
                case ("send", step, how, cost):
                    if step == "decode" and how not in {"reject", "retry", "crash"}:
                        how = "reject"
                    sent += 1
                    it.send(f"m{sent}", fail_in=step, how=how, cost=cost)
                case ("lose",):
                    it.session.fail("cut")
                    it.pipeline.forget(it.session)
                    open_session(it)
                case ("hand_back", stage):
                    await it.pipeline.hand_back(stage)
                case ("turns", count):
                    await turns(count)
        await turns(500)
        await it.pipeline.hand_back(Stage.STARTED)  # as the gate does after an outage
        await it.pipeline.until_idle()
        await turns(50)
        for session in sessions:
            _check_settled_once(session)
        assert sum(it.outcomes.values()) == sent


def _check_settled_once(session: FakeSession) -> None:
    tags = session.acked + session.returned
    assert len(tags) == len(set(tags)), f"settled twice: {session.log}"
    if not session.is_lost:
        assert sorted(tags) == list(range(1, session._last_tag + 1)), "not settled at all"
    assert len(session.acked) <= len(session.published), "acked without a confirm"
