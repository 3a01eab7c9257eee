"""How messages end: answered, retried, buried or handed back, on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pika

from feedmill.broker import letters
from support.amqp import Client, Received, connect, poll
from support.echo import ROUTE, EchoHandler, echo_kind
from support.running import running, settings


async def on_broker(url: str, ask: Callable[[Client], object]) -> object:
    """Run blocking calls of a plain client beside the worker."""

    def run() -> object:
        with connect(url) as client:
            return ask(client)

    return await asyncio.to_thread(run)


def send(client: Client, *bodies: object, **properties: object) -> None:
    for body in bodies:
        client.publish(ROUTE.exchange, ROUTE.queue, body, **properties)


def taken(queue: str, count: int = 1) -> Callable[[Client], list[Received]]:
    return lambda client: client.take(queue, count)


async def test_every_message_is_answered_once_and_acked(rabbit_url: str) -> None:
    handler = EchoHandler()
    async with running(echo_kind(handler), settings(rabbit_url)) as run:
        await run.until_ready()
        texts = [f"message {i}" for i in range(500)]
        results = await on_broker(
            rabbit_url,
            lambda client: (send(client, *({"text": text} for text in texts)), client.take(ROUTE.result_queue, 500))[1],
        )
        await run.stop()
    assert sorted(r.json["echo"] for r in results) == sorted(texts)
    assert handler.stored == dict.fromkeys(texts, 1)
    assert await on_broker(rabbit_url, lambda client: client.count(ROUTE.queue)) == 0
    assert await on_broker(rabbit_url, lambda client: client.count(ROUTE.result_queue)) == 0


async def test_results_carry_the_requests_ids_and_trace(rabbit_url: str) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-request-id": "r-1"}
    async with running(echo_kind(EchoHandler()), settings(rabbit_url)) as run:
        await run.until_ready()
        (result,) = await on_broker(
            rabbit_url,
            lambda client: (
                send(
                    client,
                    {"text": "a"},
                    correlation_id="c-1",
                    message_id="m-1",
                    headers=trace | {"x-private": "stays"},
                    content_type="text/html",
                    content_encoding="gzip",
                ),
                client.take(ROUTE.result_queue),
            )[1],
        )
    properties = result.properties
    assert (properties.correlation_id, properties.message_id) == ("c-1", "m-1")
    assert properties.headers == trace
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)


async def test_the_same_request_twice_gives_results_with_one_message_id(rabbit_url: str) -> None:
    async with running(echo_kind(EchoHandler()), settings(rabbit_url)) as run:
        await run.until_ready()
        results = await on_broker(
            rabbit_url,
            lambda client: (
                send(client, {"text": "a"}, {"text": "a"}, {"text": "b"}),
                client.take(ROUTE.result_queue, 3),
            )[1],
        )
    ids = {(r.json["echo"], r.properties.message_id) for r in results}
    assert len(ids) == 2


async def test_a_bad_message_is_buried_and_its_neighbours_are_answered(rabbit_url: str) -> None:
    bad: list[object] = [b"not json", {"text": 3}, {"text": "x", "fail": "infer-reject"}]
    bad += [{"text": "y", "fail": "commit-reject"}, {"text": "z", "fail": "decode-reject"}]
    good = [{"text": f"good {i}"} for i in range(20)]
    handler = EchoHandler()
    async with running(echo_kind(handler), settings(rabbit_url)) as run:
        await run.until_ready()
        mixed = [body for pair in zip(good, bad * 4, strict=True) for body in pair]

        def ask(client: Client) -> tuple[list[Received], list[Received]]:
            send(client, *mixed, headers={"kept": "yes", "CC": ["nowhere"]}, expiration="60000", message_id="same-id")
            return client.take(ROUTE.result_queue, 20), client.take(ROUTE.dead_queue, 20)

        results, dead = await on_broker(rabbit_url, ask)  # type: ignore[misc]
        await run.stop()
    assert {r.json["echo"] for r in results} == {body["text"] for body in good}
    reasons = sorted(r.properties.headers[letters.REASON] for r in dead)
    assert reasons == sorted(["not_json", "wrong_type", "on_demand", "on_demand", "on_demand"] * 4)
    for letter in dead:
        headers = letter.properties.headers
        assert headers["kept"] == "yes"
        assert headers[letters.QUEUE] == ROUTE.queue
        assert headers[letters.ATTEMPT] == 1
        assert headers[letters.DEAD_AT]
        assert "CC" not in headers
        assert letter.properties.expiration is None
    assert b"not json" in {letter.body for letter in dead}


async def test_a_failure_that_passes_is_retried_and_answered(rabbit_url: str) -> None:
    async with running(echo_kind(EchoHandler()), settings(rabbit_url)) as run:
        await run.until_ready()
        (result,) = await on_broker(
            rabbit_url,
            lambda client: (send(client, {"text": "a", "fail": "infer-once"}), client.take(ROUTE.result_queue))[1],
        )
    assert result.json == {"echo": "a"}


async def test_a_crash_in_the_model_is_narrowed_to_the_guilty_message(rabbit_url: str) -> None:
    """The guilty one is tried as often as there are retry queues, then buried; the others are answered at once."""
    handler = EchoHandler()
    handler.may_infer.clear()
    async with running(echo_kind(handler), settings(rabbit_url)) as run:
        await run.until_ready()
        good = [{"text": f"good {i}"} for i in range(31)]

        def ask(client: Client) -> tuple[list[Received], list[Received]]:
            send(client, {"text": "first"}, *good[:15], {"text": "guilty", "fail": "infer-crash"}, *good[15:])
            poll(lambda: run.worker.metrics.registry.get_sample_value(IN_FLIGHT, {"worker": "echo"}) == 33)
            run_loop.call_soon_threadsafe(handler.may_infer.set)
            return client.take(ROUTE.result_queue, 32), client.take(ROUTE.dead_queue, 1)

        run_loop = asyncio.get_running_loop()
        results, (dead,) = await on_broker(rabbit_url, ask)  # type: ignore[misc]
    assert {r.json["echo"] for r in results} == {"first"} | {body["text"] for body in good}
    headers = dead.properties.headers
    assert (headers[letters.REASON], headers[letters.ATTEMPT]) == ("internal_error", 3)
    assert set(handler.stored.values()) == {1}


IN_FLIGHT = "feedmill_messages_in_flight"


async def test_a_result_queue_that_was_deleted_or_unbound_is_made_again(rabbit_url: str) -> None:
    async with running(echo_kind(EchoHandler()), settings(rabbit_url)) as run:
        await run.until_ready()

        def ask(client: Client) -> list[object]:
            client.channel.queue_delete(ROUTE.result_queue)
            send(client, *({"text": f"deleted {i}"} for i in range(5)))
            first = client.take(ROUTE.result_queue, 5) if poll(lambda: exists(rabbit_url)) else []
            client.channel.queue_unbind(ROUTE.result_queue, ROUTE.exchange, ROUTE.result_queue)
            send(client, *({"text": f"unbound {i}"} for i in range(5)))
            return [r.json["echo"] for r in first + client.take(ROUTE.result_queue, 5)]

        answered = await on_broker(rabbit_url, ask)
    assert sorted(answered) == sorted([f"deleted {i}" for i in range(5)] + [f"unbound {i}" for i in range(5)])  # type: ignore[call-overload]


def exists(url: str) -> bool:
    with connect(url) as client:
        try:
            client.count(ROUTE.result_queue)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True


async def test_an_outage_pauses_intake_burns_no_retries_and_ends(rabbit_url: str) -> None:
    from feedmill.errors import Outage

    handler = EchoHandler()
    async with running(echo_kind(handler), settings(rabbit_url)) as run:
        await run.until_ready()
        handler.away = Outage("database", "gone for the test")
        await on_broker(rabbit_url, lambda client: send(client, *({"text": f"m {i}"} for i in range(50))))
        await run.until(lambda: run.worker.health.readiness()["database"] == "gone for the test")
        # All are back in their queue, none is in a retry queue, and nobody takes them.
        await on_broker(rabbit_url, lambda client: poll(lambda: client.count(ROUTE.queue) == 50) or fail(client))
        assert await on_broker(rabbit_url, lambda client: client.consumers(ROUTE.queue)) == 0
        assert await on_broker(rabbit_url, lambda client: client.count(ROUTE.retry_queue(1))) == 0
        assert run.worker.health.liveness() == []
        handler.away = None
        results = await on_broker(rabbit_url, taken(ROUTE.result_queue, 50))
        await run.until_ready()
        await run.stop()
    assert {r.json["echo"] for r in results} == {f"m {i}" for i in range(50)}  # type: ignore[attr-defined]
    assert set(handler.stored.values()) == {1}


def fail(client: Client) -> None:
    raise AssertionError(f"{client.count(ROUTE.queue)} messages in the queue")


async def test_sigterm_finishes_what_is_started_and_hands_back_the_rest(rabbit_url: str) -> None:
    from feedmill.settings import BatchSettings

    handler = EchoHandler()
    handler.may_infer.clear()
    small = settings(rabbit_url, batch=BatchSettings(max_batch_items=4))
    async with running(echo_kind(handler), small) as run:
        await run.until_ready()
        await on_broker(rabbit_url, lambda client: send(client, *({"text": f"m {i}"} for i in range(40))))
        await asyncio.wait_for(handler.inferring.wait(), 10)
        run.shutdown.request()
        started = len(handler.batches[0])
        await on_broker(rabbit_url, lambda client: poll(lambda: client.count(ROUTE.queue) == 40 - started))
        handler.may_infer.set()
        await asyncio.wait_for(run.task, 30)
        assert await on_broker(rabbit_url, lambda client: client.count(ROUTE.queue)) == 40 - started
        results = await on_broker(rabbit_url, taken(ROUTE.result_queue, started))
    assert {r.json["echo"] for r in results} == set(handler.stored)  # type: ignore[attr-defined]
    assert len(handler.stored) == started


async def test_a_second_signal_hands_everything_back_at_once(rabbit_url: str) -> None:
    handler = EchoHandler()
    handler.may_infer.clear()
    async with running(echo_kind(handler), settings(rabbit_url)) as run:
        await run.until_ready()
        await on_broker(rabbit_url, lambda client: send(client, *({"text": f"m {i}"} for i in range(10))))
        await asyncio.wait_for(handler.inferring.wait(), 10)
        run.shutdown.request()
        run.shutdown.request()
        await asyncio.wait_for(run.task, 30)
        assert await on_broker(rabbit_url, lambda client: poll(lambda: client.count(ROUTE.queue) == 10))
    assert handler.stored == {}


async def test_unacknowledged_messages_are_bounded_by_the_prefetch(rabbit_url: str) -> None:
    handler = EchoHandler()
    handler.may_infer.clear()
    async with running(echo_kind(handler), settings(rabbit_url, prefetch=10)) as run:
        await run.until_ready()
        await on_broker(rabbit_url, lambda client: send(client, *({"text": f"m {i}"} for i in range(100))))
        in_flight = run.worker.metrics.registry.get_sample_value
        await run.until(lambda: in_flight(IN_FLIGHT, {"worker": "echo"}) == 10)
        assert await on_broker(rabbit_url, lambda client: client.count(ROUTE.queue)) == 90
        handler.may_infer.set()
        await on_broker(rabbit_url, taken(ROUTE.result_queue, 100))
