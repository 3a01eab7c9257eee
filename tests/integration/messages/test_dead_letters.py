"""`feedmill dead` against the real broker: looking loses and reorders nothing, replaying loses nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Sequence

import pytest
from pamqp.commands import Basic

from feedmill.broker import letters
from feedmill.contract import TOXIC
from feedmill_local import dead_letters
from feedmill_local.client import Client
from feedmill_local.dead_letters import Selection

Feedmill = Callable[..., subprocess.CompletedProcess[str]]

EVERYTHING = Selection()


async def bury(client: Client, numbers: Sequence[int], *, durable_type: str = "classic") -> None:
    """Dead letters with the ids m0, m1 …; odd ones are ``not_json``, even ones ``wrong_type``."""
    channel = await client.channel(confirms=False)
    await channel.queue_declare(TOXIC.dead_queue, durable=True, arguments={"x-queue-type": durable_type}, timeout=10)
    await client.declare(TOXIC)
    for number in numbers:
        headers = {
            letters.ATTEMPT: 1,
            letters.REASON: "not_json" if number % 2 else "wrong_type",
            letters.DETAIL: "content: expected text\x1b[31m",
            letters.DEAD_AT: "2026-01-01T00:00:00Z",
            letters.QUEUE: TOXIC.queue,
            "traceparent": "00-1-2-01",
        }
        properties = Basic.Properties(message_id=f"m{number}", headers=headers, delivery_mode=2)
        await client.republish("", TOXIC.dead_queue, f"body {number} \x1b[2J".encode(), properties)


async def ids(client: Client) -> list[str]:
    return [letter.message_id for letter in await dead_letters.look(client, TOXIC, EVERYTHING)]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_looking_keeps_all_in_their_places(client: Client, queue_type: str) -> None:
    await bury(client, range(10), durable_type=queue_type)
    first = await dead_letters.look(client, TOXIC, Selection(limit=4))
    assert [(letter.position, letter.message_id) for letter in first] == [(n + 1, f"m{n}") for n in range(4)]
    for _ in range(3):
        assert await ids(client) == [f"m{n}" for n in range(10)]
    assert await dead_letters.count(client, TOXIC) == 10


async def test_without_a_queue_there_are_no_letters(client: Client) -> None:
    assert await dead_letters.count(client, TOXIC) == 0
    assert await ids(client) == []
    assert (await dead_letters.replay(client, TOXIC, EVERYTHING)).count == 0
    assert (await dead_letters.purge(client, TOXIC, EVERYTHING)).count == 0


async def test_replay_by_reason_keeps_the_others_in_order(client: Client) -> None:
    await bury(client, range(150))
    settled = await dead_letters.replay(client, TOXIC, Selection(reason="not_json", limit=70))
    assert (settled.count, settled.failures) == (70, [])
    odd = list(range(1, 150, 2))
    assert await ids(client) == [f"m{n}" for n in range(150) if n not in odd[:70]]
    assert await client.message_count(TOXIC.queue) == 70

    channel = await client.channel(confirms=False)
    message = await channel.basic_get(TOXIC.queue, no_ack=True, timeout=10)
    assert message.header.properties.message_id == "m1"
    assert message.header.properties.headers == {"traceparent": "00-1-2-01"}
    assert bytes(message.body) == b"body 1 \x1b[2J"


async def test_what_no_queue_takes_stays(client: Client) -> None:
    await bury(client, range(3))
    channel = await client.channel(confirms=False)
    await channel.queue_delete(TOXIC.queue, timeout=10)
    settled = await dead_letters.replay(client, TOXIC, EVERYTHING)
    assert settled.count == 0
    assert len(settled.failures) == 3
    assert await ids(client) == ["m0", "m1", "m2"]


async def test_purge_of_some_and_of_all(client: Client) -> None:
    await bury(client, range(6))
    assert (await dead_letters.purge(client, TOXIC, Selection(message_id="m4"))).count == 1
    assert await ids(client) == ["m0", "m1", "m2", "m3", "m5"]
    assert (await dead_letters.purge(client, TOXIC, EVERYTHING)).count == 5
    assert await ids(client) == []


async def test_commands(client: Client, feedmill: Feedmill) -> None:
    await bury(client, range(3))

    listed = await asyncio.to_thread(feedmill, "dead", "list")
    assert listed.returncode == 0, listed.stderr
    assert "toxic: 3 dead letters in toxic-detect-queue.dead" in listed.stdout
    assert "hint: 0 dead letters" in listed.stdout
    assert "\x1b" not in listed.stdout

    as_json = await asyncio.to_thread(feedmill, "dead", "list", "toxic", "--json")
    assert [json.loads(line)["message_id"] for line in as_json.stdout.splitlines()] == ["m0", "m1", "m2"]

    shown = await asyncio.to_thread(feedmill, "dead", "show", "toxic", "2")
    assert "message_id: m1" in shown.stdout
    assert "x-feedmill-reason: not_json" in shown.stdout
    assert "body 1 \\x1b[2J" in shown.stdout

    by_id = await asyncio.to_thread(feedmill, "dead", "show", "toxic", "--message-id", "m2", "--json")
    assert json.loads(by_id.stdout)["reason"] == "wrong_type"

    replayed = await asyncio.to_thread(feedmill, "dead", "replay", "toxic", "--message-id", "m0")
    assert "replayed 1 dead letter of toxic" in replayed.stdout
    assert await ids(client) == ["m1", "m2"]

    purged = await asyncio.to_thread(feedmill, "dead", "purge", "toxic", "--yes")
    assert "deleted 2 dead letters of toxic" in purged.stdout
    assert await dead_letters.count(client, TOXIC) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("show", "toxic", "1"), 1, "toxic-detect-queue.dead: there is no letter 1"),
        (("show", "toxic", "1", "--message-id", "x"), 2, "INDEX and --message-id: give one of them"),
        (("replay", "toxic"), 2, "expected either --all, or --message-id or --reason"),
        (("purge", "toxic"), 2, "add --yes to delete dead letters for good"),
    ],
)
async def test_mistakes(feedmill: Feedmill, arguments: tuple[str, ...], code: int, expected: str) -> None:
    done = await asyncio.to_thread(feedmill, "dead", *arguments)
    assert done.returncode == code
    assert expected in " ".join(done.stderr.split())
