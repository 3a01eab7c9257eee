"""The command as a user runs it, and a stand-in for a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aio_pika
import pytest

from feedmill.contract import Route
from feedmill.settings import BrokerSettings, read
from feedmill_local.client import Client, open_client

Feedmill = Callable[..., subprocess.CompletedProcess[str]]
Worker = Callable[[Route], AbstractAsyncContextManager[None]]


@pytest.fixture
def feedmill(rabbit_url: str, tmp_path: Path) -> Feedmill:
    """Runs ``feedmill`` with arguments and standard input, without a terminal."""

    def run(*arguments: str, stdin: str | None = None, broker: str = rabbit_url) -> subprocess.CompletedProcess[str]:
        source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            [sys.executable, "-m", "feedmill_local", *arguments],
            env=os.environ | {"RABBITMQ_URL": broker, "PYTHONIOENCODING": "utf-8"},
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
            **source,  # type: ignore[arg-type]
        )

    return run


@pytest.fixture
async def client(rabbit_url: str) -> AsyncIterator[Client]:
    async with open_client(read(BrokerSettings, url=rabbit_url)) as client:
        yield client


@pytest.fixture
def answering(rabbit_url: str) -> Worker:
    """A stand-in that answers each message of a route with its own body, and leaves out those that say ``silent``."""

    @asynccontextmanager
    async def work(route: Route) -> AsyncIterator[None]:
        async with open_client(read(BrokerSettings, url=rabbit_url)) as client:
            await client.declare(route)
        async with await aio_pika.connect(rabbit_url, timeout=10) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(route.exchange, ensure=False)

            async def answer(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                async with message.process():
                    if b"silent" not in message.body:
                        result = aio_pika.Message(message.body, correlation_id=message.correlation_id)
                        await exchange.publish(result, route.result_queue, timeout=10)

            queue = await channel.get_queue(route.queue, ensure=False)
            await queue.consume(answer, timeout=10)
            yield

    return work
