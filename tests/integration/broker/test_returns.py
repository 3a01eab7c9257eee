"""Messages that come back again and again on quorum queues, which count that and drop what came back too often.

RabbitMQ's limit is 20 by default from 4.0 on; here every version has it, and no dead-letter exchange: what exceeds it
is lost. Feedmill must never let a message come near it, and must not let one end its workers for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from feedmill import gate
from feedmill.broker import letters
from feedmill.errors import Outage
from feedmill.settings import BatchSettings
from feedmill_local.rabbitmq import RabbitNode
from support.amqp import Client, Received, connect, poll
from support.echo import ROUTE, EchoHandler, echo_kind
from support.running import Running, running, settings
from support.workers import Servers, WorkerProcess, worker

LIMIT = 20
MAX_RETURNS = 2
TESTS = Path(__file__).parents[2]


@pytest.fixture
def client(rabbit_url: str) -> Iterator[Client]:
    """A plain client, in a vhost whose input queue is a quorum queue with a delivery limit, whatever the others are."""
    with connect(rabbit_url) as found:
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": LIMIT}
        found.channel.queue_declare(ROUTE.queue, durable=True, arguments=arguments)
        found.channel.exchange_declare(ROUTE.exchange, "direct", durable=True)
        found.channel.queue_bind(ROUTE.queue, ROUTE.exchange, ROUTE.queue)
        yield found


def send(client: Client, *bodies: object) -> None:
    for number, body in enumerate(bodies):
        client.publish(ROUTE.exchange, ROUTE.queue, body, message_id=f"m-{number}", delivery_mode=2)


def innocents(count: int) -> list[dict[str, str]]:
    return [{"text": f"innocent {number}"} for number in range(count)]


def texts(bodies: list[dict[str, str]]) -> set[str]:
    return {body["text"] for body in bodies}


def poison(name: str) -> dict[str, str]:
    return {"text": name, "fail": "infer-kill"}


@dataclass
class Outcome:
    """What came of the messages, by their texts, and how often a worker ended."""

    answered: set[str] = field(default_factory=set)
    dead: dict[str, Received] = field(default_factory=dict)
    deaths: int = 0

    def take(self, client: Client) -> int:
        """What is in the queues by now; how many messages are settled."""
        while (found := client.get(ROUTE.result_queue)) is not None:
            self.answered.add(found.json["echo"])
        while (found := client.get(ROUTE.dead_queue)) is not None:
            self.dead[found.json["text"]] = found
        return len(self.answered) + len(self.dead)


def run_until_settled(client: Client, url: str, folder: Path, count: int) -> Outcome:
    """Start a worker again whenever it ends, as Kubernetes does, until ``count`` messages are answered or dead."""
    servers, out = Servers(url, "mongodb://localhost:1", "unused"), Outcome()
    for queue in (ROUTE.result_queue, ROUTE.dead_queue):
        client.channel.queue_declare(queue, durable=True)
    environment = {"FEEDMILL_PREFETCH": 16, "FEEDMILL_MAX_BATCH_ITEMS": 4, "FEEDMILL_MAX_RETURNS": MAX_RETURNS}
    while out.take(client) < count:
        assert out.deaths <= LIMIT, f"it ends for ever; {out}"
        with worker("echo", servers, folder, module="support.echo_worker", PYTHONPATH=TESTS, **environment) as process:
            assert poll(partial(is_over, client, process, out, count), 60, 0.1), f"{out}\n{process.tail()}"
            out.deaths += process.process.poll() is not None
    return out


def is_over(client: Client, process: WorkerProcess, out: Outcome, count: int) -> bool:
    return out.take(client) >= count or process.process.poll() is not None


def test_what_ends_its_workers_is_buried_and_what_is_beside_it_is_answered(
    client: Client, rabbit_url: str, tmp_path: Path
) -> None:
    good = innocents(30)
    send(client, *good[:6], poison("poison 1"), *good[6:20], poison("poison 2"), *good[20:])
    out = run_until_settled(client, rabbit_url, tmp_path, len(good) + 2)
    assert out.answered == texts(good)
    assert set(out.dead) == {"poison 1", "poison 2"}
    # Each so often beside others, and so often alone. One that ends the worker while the other is being set apart makes
    # a second copy of that, as anything between publish and ack does; as often as it can end workers beside others.
    assert out.deaths <= 2 * (MAX_RETURNS + (1 + MAX_RETURNS) * MAX_RETURNS)
    for letter in out.dead.values():
        assert letter.properties.headers[letters.REASON] == "returned_too_often"
        assert letters.DELIVERY_COUNT not in letter.properties.headers
        assert letter.properties.message_id.startswith("m-")
    assert client.count(ROUTE.queue) == client.count(ROUTE.alone_queue) == 0


async def test_what_only_happened_to_be_in_hand_is_answered(client: Client, rabbit_url: str) -> None:
    """Consumers that end for reasons of their own, the same messages in hand each time: once more, and the broker would
    drop them all."""
    good = innocents(12)
    send(client, *good)
    await asyncio.to_thread(lambda: [hold_and_end(rabbit_url, len(good)) for _ in range(LIMIT)])
    handler = EchoHandler()
    async with running(echo_kind(handler), settings(rabbit_url)) as run:
        await run.until(lambda: outcomes(run, "answered")() == len(good))
        assert outcomes(run, "set_apart")() == len(good)
        await run.stop()
    assert sorted(handler.batches) == sorted([f"{text}|"] for text in texts(good)), "each alone"
    assert client.count(ROUTE.dead_queue) == client.count(ROUTE.queue) == client.count(ROUTE.alone_queue) == 0


def hold_and_end(url: str, count: int) -> None:
    held: list[object] = []
    with connect(url) as ending:
        ending.channel.basic_consume(ROUTE.queue, lambda *found: held.append(found))

        def is_full() -> bool:
            ending.channel.connection.process_data_events(0.05)
            return len(held) == count

        assert poll(is_full)


async def test_an_outage_uses_up_no_deliveries(
    client: Client, rabbit_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst kind: the database answers when it is asked, and fails the work, so that messages are taken and handed
    back again and again."""
    monkeypatch.setattr(gate, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(gate, "MAX_RETRY_SECONDS", 0.05)
    handler, good = EchoHandler(), innocents(20)
    send(client, *good)

    async def ready() -> None:
        return None

    handler.ready = ready  # type: ignore[method-assign]
    handler.away = Outage("database", "refuses writes")
    async with running(echo_kind(handler), settings(rabbit_url)) as run:
        returned = outcomes(run, "returned")
        await run.until(lambda: returned() >= (LIMIT + 5) * len(good))
        handler.away = None
        await run.until(lambda: outcomes(run, "answered")() == len(good))
        await run.stop()
    assert handler.stored == {body["text"]: 1 for body in good}
    assert client.count(ROUTE.dead_queue) == 0


def outcomes(run: Running, outcome: str) -> Callable[[], int]:
    return lambda: run.worker.metrics.outcomes.get(outcome, 0)


async def test_restarts_use_up_no_deliveries(client: Client, rabbit_url: str) -> None:
    """Workers that are asked to end, each with the same messages in hand that it has not begun."""
    good = innocents(10)
    send(client, *good)
    small = settings(rabbit_url, batch=BatchSettings(max_batch_items=1))
    for _ in range(LIMIT + 2):
        handler = EchoHandler()
        handler.may_infer.clear()
        async with running(echo_kind(handler), small) as run:
            await until_held(run, len(good))
            run.shutdown.request()
            await until_held(run, 1)  # what waited is handed back, what is in the model is waited for
            run.shutdown.request()
            await asyncio.wait_for(run.task, 30)
    handler = EchoHandler()
    async with running(echo_kind(handler), small) as run:
        await run.until(lambda: outcomes(run, "answered")() == len(good))
        await run.stop()
    assert set(handler.stored) == texts(good)
    assert client.count(ROUTE.dead_queue) == 0


async def until_held(run: Running, count: int) -> None:
    ask = run.worker.metrics.registry.get_sample_value
    await run.until(lambda: ask("feedmill_messages_in_flight", {"worker": "echo"}) == count)


@pytest.mark.parametrize("how", ["nack", "reject", "disconnect"])
def test_what_the_broker_counts(client: Client, rabbit_url: str, rabbit_node: RabbitNode, how: str) -> None:
    """What all of this rests on. From 4.3 on a return by nack is not counted; by reject it is, so Feedmill has none."""
    version = tuple(int(part) for part in json.loads(rabbit_node.ctl("eval", "rabbit_misc:version().")).split(".")[:2])
    send(client, {"text": "counted"})
    times = 0
    while times <= LIMIT + 3 and come_back(rabbit_url, how):
        times += 1
    assert times == (LIMIT + 4 if how == "nack" and version >= (4, 3) else LIMIT + 1)


def come_back(url: str, how: str) -> bool:
    """Take the message and give it back; False where there is none any more."""
    with connect(url) as taking:
        found: list[Any] = []

        def is_there() -> bool:
            found[:] = taking.channel.basic_get(ROUTE.queue)
            return found[0] is not None

        if not poll(is_there, 2, 0.05):
            return False
        if how == "nack":
            taking.channel.basic_nack(found[0].delivery_tag, requeue=True)
        elif how == "reject":
            taking.channel.basic_reject(found[0].delivery_tag, requeue=True)
        return True
