"""`feedmill run`: on servers of the user's, which it asks about; and what it says when something is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import orjson
import pytest
from pymongo import MongoClient

from feedmill.contract import ENCODE, HINT, TOXIC, Route
from feedmill.settings import BrokerSettings, StoreSettings, read
from feedmill_local import demo, sample_feed
from feedmill_local.client import open_client
from feedmill_local.demo import Servers
from feedmill_local.sample_feed import Feed

RUN_TIMEOUT_SECONDS = 240.0
Reply = Callable[[dict[str, Any]], dict[str, Any] | None]


@pytest.fixture
def environment(rabbit_url: str, mongo_uri: str, database_name: str) -> dict[str, str]:
    return os.environ | {
        "RABBITMQ_URL": rabbit_url,
        "MONGO_URI": mongo_uri,
        "DATABASE_NAME": database_name,
        "PYTHONIOENCODING": "utf-8",
    }


def feedmill_run(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "feedmill_local", "run", *arguments],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def test_servers_of_the_users_are_asked_about_first(
    environment: dict[str, str], tmp_path: Path, mongo_uri: str, database_name: str
) -> None:
    with feedmill_run(environment, tmp_path) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "240 sample posts and 276 sample comments" in errors
    assert "Add --yes" in errors
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        assert client[database_name].list_collection_names() == []


def test_it_works(environment: dict[str, str], tmp_path: Path, mongo_uri: str, database_name: str) -> None:
    with feedmill_run(environment, tmp_path, "--yes") as process:
        output, errors = process.communicate(timeout=RUN_TIMEOUT_SECONDS)
    assert process.returncode == 0, output + errors
    assert "All 564 messages were answered" in output
    assert "\x1b" not in output
    assert not (tmp_path / ".feedmill" / "stack.json").exists()
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        comments = list(client[database_name].comments.find({}, {"isToxic": 1}))
    assert len(comments) == 276
    assert 20 < sum(comment["isToxic"] for comment in comments) < 120


def test_interrupted_it_takes_everything_down(environment: dict[str, str], tmp_path: Path) -> None:
    with feedmill_run(environment, tmp_path, "--yes") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "sending" in line:
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=RUN_TIMEOUT_SECONDS)
    assert process.returncode == 1, output + errors
    assert "interrupted" in output
    assert "Traceback" not in errors
    assert not (tmp_path / ".feedmill" / "stack.json").exists()


@asynccontextmanager
async def replying(rabbit_url: str, route: Route, reply: Reply) -> AsyncIterator[None]:
    """A stand-in for a worker."""
    async with open_client(read(BrokerSettings, url=rabbit_url)) as client:
        await client.declare(route)
    async with await aio_pika.connect(rabbit_url, timeout=10) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(route.exchange, ensure=False)

        async def answer(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            async with message.process():
                result = reply(orjson.loads(message.body))
                if result is not None:
                    made = aio_pika.Message(orjson.dumps(result), correlation_id=message.correlation_id)
                    await exchange.publish(made, route.result_queue, timeout=10)

        queue = await channel.get_queue(route.queue, ensure=False)
        await queue.consume(answer, timeout=10)
        yield


async def test_what_is_wrong_is_said(
    rabbit_url: str, mongo_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that store nothing, one of which leaves messages unanswered while another answers nonsense."""
    monkeypatch.setattr(demo, "PATIENCE_SECONDS", 1.0)
    feed = sample_feed.load()
    silent = feed.comments[0]["_id"]
    replies: dict[Route, Reply] = {
        TOXIC: lambda body: None if body["_id"] == silent else {"commentId": body["_id"], "isToxic": True},
        ENCODE: lambda body: {"id": body["_id"], "status": "broken"},
        HINT: lambda body: {"id": body["_id"], "homologous_posts": [{}] * body["top_k"]},
    }
    servers = Servers(
        read(BrokerSettings, url=rabbit_url), read(StoreSettings, uri=mongo_uri, database=database_name), True
    )
    small = Feed(feed.posts[:10], feed.comments[:10])
    async with AsyncExitStack() as stack:
        for route, reply in replies.items():
            await stack.enter_async_context(replying(rabbit_url, route, reply))
        outcome = await demo.play(small, servers, lambda _: None, lambda _: None)

    problems = "\n".join(outcome.problems)
    assert "toxic: 1 of 10 messages were not answered" in problems
    assert "toxic: 9 verdicts are not in the collection comments" in problems
    assert "encode: 10 wrong answers" in problems
    assert "encode: 10 posts have no embedding in the collection posts" in problems
    assert "encode: 10 posts have no vector in any collection" in problems
    assert len(outcome.answers["hint"]) == 2
    async with open_client(servers.broker) as client:  # results are taken away from a private broker
        assert [await client.message_count(route.result_queue) for route in replies] == [0, 0, 0]
