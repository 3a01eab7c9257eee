"""What exists is used as it is; what is missing is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.amqp import Client, connect
from support.echo import ROUTE, EchoHandler, echo_kind
from support.running import running, settings


async def echo_through(url: str, before: Callable[[Client], object], **broker: Any) -> None:
    def prepare() -> None:
        with connect(url) as client:
            before(client)

    def ask() -> None:
        with connect(url) as client:
            client.publish(ROUTE.exchange, ROUTE.queue, {"text": "hello"})
            assert client.take(ROUTE.result_queue)[0].json == {"echo": "hello"}

    await asyncio.to_thread(prepare)
    async with running(echo_kind(EchoHandler()), settings(url, **broker)) as run:
        await run.until_ready()
        await asyncio.to_thread(ask)


QUEUES = [
    pytest.param({}, id="classic"),
    pytest.param({"x-queue-type": "quorum"}, id="quorum"),
    pytest.param({"x-max-priority": 5, "x-message-ttl": 600_000, "x-max-length": 1000}, id="with-arguments"),
    pytest.param({"x-queue-mode": "lazy", "x-single-active-consumer": True}, id="lazy-single-active"),
]


@pytest.mark.parametrize("arguments", QUEUES)
async def test_queues_of_others_are_used_as_they_are(rabbit_url: str, arguments: dict[str, Any]) -> None:
    def declare(client: Client) -> None:
        client.channel.exchange_declare(ROUTE.exchange, "direct", durable=True)
        for queue in (ROUTE.queue, ROUTE.result_queue):
            client.channel.queue_declare(queue, durable=True, arguments=arguments)
            client.channel.queue_bind(queue, ROUTE.exchange, queue)

    await echo_through(rabbit_url, declare)


@pytest.mark.parametrize("kind", ["direct", "topic"])
async def test_exchanges_of_others_are_used_as_they_are(rabbit_url: str, kind: str) -> None:
    await echo_through(rabbit_url, lambda client: client.channel.exchange_declare(ROUTE.exchange, kind, durable=False))


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_what_is_missing_is_made_and_a_producer_may_declare_it_afterwards(
    rabbit_url: str, queue_type: str
) -> None:
    await echo_through(rabbit_url, lambda _: None, queue_type=queue_type)

    def declare() -> None:
        arguments = {"x-queue-type": "quorum"} if queue_type == "quorum" else {}
        with connect(rabbit_url) as client:
            client.channel.exchange_declare(ROUTE.exchange, "direct", durable=True)
            client.channel.queue_declare(ROUTE.queue, durable=True, arguments=arguments)
            client.channel.queue_declare(ROUTE.result_queue, durable=True, arguments=arguments)
            client.channel.queue_declare(ROUTE.dead_queue, durable=True, arguments=arguments)

    await asyncio.to_thread(declare)


async def test_several_workers_that_start_together_agree(rabbit_url: str) -> None:
    async def one() -> None:
        async with running(echo_kind(EchoHandler()), settings(rabbit_url)) as run:
            await run.until_ready()

    await asyncio.gather(*(one() for _ in range(4)))
