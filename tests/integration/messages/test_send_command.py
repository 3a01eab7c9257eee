"""`feedmill send` against the real broker."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from feedmill.broker.errors import Undeliverable
from feedmill.contract import ENCODE, HINT, TOXIC, Route
from feedmill_local.client import Client, Inbox, Request, send_all

Feedmill = Callable[..., subprocess.CompletedProcess[str]]
Worker = Callable[[Route], AbstractAsyncContextManager[None]]

POST_ID = "507f1f77bcf86cd799439011"


async def bodies(client: Client, queue: str) -> list[dict[str, object]]:
    """What waits in a queue; it is taken."""
    channel = await client.channel(confirms=False)
    found = []
    while (message := await channel.basic_get(queue, no_ack=True, timeout=10)).delivery_tag is not None:
        properties = message.header.properties
        assert properties.delivery_mode == 2
        assert properties.message_id
        assert properties.correlation_id == properties.message_id
        found.append(json.loads(message.body))
    return found


async def test_a_text_becomes_a_message_that_waits_for_its_worker(feedmill: Feedmill, client: Client) -> None:
    done = await asyncio.to_thread(feedmill, "send", "toxic", "You are an idiot. 🌍")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "sent 1 message to toxic-detect-queue" in done.stderr
    assert await bodies(client, TOXIC.queue) == [{"content": "You are an idiot. 🌍"}]


async def test_hint_by_id(feedmill: Feedmill, client: Client) -> None:
    done = await asyncio.to_thread(feedmill, "send", "hint", "--id", POST_ID, "--top-k", "3")
    assert done.returncode == 0, done.stderr
    assert await bodies(client, HINT.queue) == [{"top_k": 3, "_id": POST_ID}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("hint", "some text"), "hint needs the post's id: add --id"),
        (("encode", "some text"), "encode needs the post's id: add --id"),
        (("encode", "--id", POST_ID), "encode needs a TEXT beside --id"),
        (("toxic", "text", "--top-k", "3"), "--top-k: for hint only"),
        (("toxic", "-", "--id", "x"), "--id: only with TEXT"),
        (("nobody", "text"), "'nobody' is not one of"),
        (("toxic",), "no messages: expected at least one JSON object"),
    ],
)
async def test_wrong_usage_ends_with_2(feedmill: Feedmill, arguments: tuple[str, ...], expected: str) -> None:
    done = await asyncio.to_thread(feedmill, "send", *arguments)
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.split())


async def test_a_file_of_lines(feedmill: Feedmill, client: Client, tmp_path: Path) -> None:
    posts = [{"_id": f"{n:024x}", "content": f"post {n}"} for n in range(300)]
    path = tmp_path / "posts.jsonl"
    path.write_text("\n".join(map(json.dumps, posts)), encoding="utf-8")
    done = await asyncio.to_thread(feedmill, "send", "encode", "--file", str(path))
    assert done.returncode == 0, done.stderr
    assert "sent 300 messages" in done.stderr
    assert sorted(map(json.dumps, await bodies(client, ENCODE.queue))) == sorted(map(json.dumps, posts))


async def test_a_bad_line_sends_nothing(feedmill: Feedmill, client: Client) -> None:
    done = await asyncio.to_thread(feedmill, "send", "toxic", stdin='{"content": "fine"}\n{"content": "bro\n')
    assert done.returncode == 2
    assert "standard input, line 2: expected a JSON object" in " ".join(done.stderr.split())
    assert not await client.message_count(TOXIC.queue)


async def test_wait_prints_the_results_and_takes_none(feedmill: Feedmill, client: Client, answering: Worker) -> None:
    lines = "".join(f'{{"content":"comment {n}"}}\n' for n in range(40))
    async with answering(TOXIC):
        done = await asyncio.to_thread(feedmill, "send", "toxic", "-", "--wait", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(lines.splitlines())
    assert "40 answered" in done.stderr
    assert await client.message_count(TOXIC.result_queue) == 40


async def test_wait_fails_when_a_result_does_not_come(feedmill: Feedmill, answering: Worker) -> None:
    lines = '{"content":"hello"}\n{"content":"silent"}\n'
    async with answering(TOXIC):
        done = await asyncio.to_thread(feedmill, "send", "toxic", "--wait", "--timeout", "1", stdin=lines)
    assert done.returncode == 1
    assert done.stdout == '{"content":"hello"}\n'
    assert "1 not answered" in done.stderr


async def test_returned_messages_are_told(client: Client) -> None:
    await client.declare(TOXIC)
    channel = await client.channel(confirms=False)
    await channel.queue_delete(TOXIC.queue, timeout=10)
    inbox = Inbox()
    returned = await send_all(client, [Request(TOXIC, b"{}") for _ in range(3)], inbox)
    assert [entry.why for entry in returned] == [
        "toxic-detect-exchange -> toxic-detect-queue: returned, no queue is bound"
    ] * 3
    assert inbox.pending == []
    with pytest.raises(Undeliverable):
        await client.publish(Request(TOXIC, b"{}"))


async def test_a_broker_that_is_away_is_told_without_credentials(feedmill: Feedmill, rabbit_url: str) -> None:
    password = urlsplit(rabbit_url).password or ""
    done = await asyncio.to_thread(feedmill, "send", "toxic", "hello", broker=f"amqp://u:{password}@127.0.0.1:1/")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert password not in done.stderr
    assert "Traceback" not in done.stderr
