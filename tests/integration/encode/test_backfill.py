from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from feedmill.spaces import Space, VectorWrite, content_hash, coverage, list_spaces, register_space, write_vectors
from feedmill.store import Store, Write
from feedmill_encode.backfill.ledger import Ledger

SPACE = Space("one", "pkg://model", "r1", 3)


async def add_posts(store: Store, ids: list[Any], content: str = "text") -> None:
    await store.write("posts", [Write(i, {"$set": {"content": f"{content} of {i}"}}, upsert=True) for i in ids])


async def test_ranges_are_shared_out_without_overlap_whatever_the_ids(store: Store) -> None:
    ids: list[Any] = [*(f"post {number:02}" for number in range(7)), *(ObjectId() for _ in range(8))]
    await add_posts(store, ids)
    await register_space(store, SPACE)
    ledgers = [Ledger(store, SPACE, f"worker {number}", 60) for number in range(3)]
    await asyncio.gather(*(ledger.begin() for ledger in ledgers))
    taken: list[Any] = []

    async def work(ledger: Ledger) -> None:
        while (lease := await ledger.claim(2)) is not None:
            found = await ledger.ids(lease, 100)
            taken.extend(found)
            assert await ledger.complete(lease, len(found))

    await asyncio.gather(*(work(ledger) for ledger in ledgers))
    assert sorted(map(str, taken)) == sorted(map(str, ids))
    while not (progress := await ledgers[0].progress()).is_done:
        await work(ledgers[0])
    assert (progress.done, progress.total) == (15, 15)
    [info] = await list_spaces(store)
    assert (info.state, info.backfill["state"], info.backfill["done"]) == ("ready", "done", 15)
    assert info.backfill["updatedAt"]
    await ledgers[0].begin()
    assert await ledgers[0].progress() == type(progress)(False, 0, 15), "the next start looks through all posts again"


async def test_the_range_of_a_process_that_fell_silent_is_taken_over_once(store: Store) -> None:
    await add_posts(store, ["a", "b"])
    await register_space(store, SPACE)
    dead, other, third = (Ledger(store, SPACE, name, 0.2) for name in ("dead", "other", "third"))
    await dead.begin()
    lost = await dead.claim(10)
    assert lost is not None
    assert await other.claim(10) is None, "it may be alive"
    lost = await dead.keep(lost)
    assert lost is not None
    await asyncio.sleep(0.25)
    assert await other.claim(10) is None, "it was"
    await asyncio.sleep(0.25)
    taken = await other.claim(10)
    assert taken is not None
    assert (taken.after, taken.upto) == (lost.after, lost.upto)
    assert await dead.keep(lost) is None
    assert not await dead.complete(lost, 2)
    await other.release(taken)
    again = await third.claim(10)
    assert again is not None
    assert await third.complete(again, 2)
    assert await third.claim(10) is None
    assert (await third.progress()).is_done


@contextmanager
def backfill(mongo_uri: str, database: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "MONGO_URI": mongo_uri, "DATABASE_NAME": database, "FEEDMILL_THREADS": "1"}
    with (folder / "backfill.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "feedmill_encode", "backfill", "--json", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def test_a_backfill_that_is_killed_and_stopped_goes_on_with_several_at_once(
    store: Store, mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    ids: list[Any] = [ObjectId() for _ in range(60)]
    await add_posts(store, ids)
    await store.write("posts", [Write("silent", {"$set": {"content": "  "}}, upsert=True)])

    async def vectors() -> int:
        infos = await list_spaces(store)
        return infos[0].vectors if infos else 0

    async def until(count: int, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 120
        while await vectors() < count:
            assert process.poll() is None, (tmp_path / "backfill.log").read_text()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    with backfill(mongo_uri, database_name, tmp_path, "--rate", "10") as process:
        await until(5, process)
        process.kill()
        process.wait()
    killed_at = await vectors()
    assert 5 <= killed_at < 60
    with backfill(mongo_uri, database_name, tmp_path, "--rate", "10", "--stale-seconds", "0.5") as process:
        await until(killed_at + 5, process)
        process.send_signal(signal.SIGTERM)
        outcome = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 143, (tmp_path / "backfill.log").read_text()
    assert outcome["state"] == "running"
    with (
        backfill(mongo_uri, database_name, tmp_path) as first,
        backfill(mongo_uri, database_name, tmp_path) as second,
    ):
        outcomes = [json.loads(process.communicate(timeout=120)[0]) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), (tmp_path / "backfill.log").read_text()
    [info] = await list_spaces(store)
    assert await coverage(store, info.space) == (60, 61)
    assert outcomes[0]["state"] == outcomes[1]["state"] == "done"
    assert sum(outcome["overtaken"] for outcome in outcomes) == 0
    assert sum(outcome["encoded"] for outcome in outcomes) <= 60 - killed_at
    posts = await store.find("posts", ids)
    assert all(len(post["embedding"]) == info.space.dimensions for post in posts.values())
    stored = await store.find(info.space.collection, ids)
    assert all(stored[i]["contentHash"] == content_hash(posts[i]["content"]) for i in ids)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["backfill", "--rate", "0"], 2, "above 0"),
        (["backfill", "--batch", "many"], 2, "--batch"),
        (["spaces"], 2, "list|activate|drop"),
        (["spaces", "drop", "one"], 1, "active one"),
        (["spaces", "drop", "never-seen"], 1, "not registered"),
        (["spaces", "activate", "never-seen"], 1, "not registered"),
        (["spaces", "activate", "two", "--json"], 0, '{"active": "two"}'),
        (["spaces", "list", "--json"], 0, '"vectors": 1'),
        (["spaces", "list"], 0, "REVISION"),
    ],
)
async def test_the_commands_say_what_is_wrong(
    store: Store, mongo_uri: str, database_name: str, arguments: list[str], code: int, words: str
) -> None:
    for name in ("one", "two"):
        await register_space(store, Space(name, "pkg://model", "r1", 3))
    await write_vectors(store, SPACE, [VectorWrite("a", b"\0\0\x80\x3f" * 3, "hash")])
    await store.write("vector_spaces", [Write("active", {"$set": {"space": "one"}}, upsert=True)])
    environment = {**os.environ, "MONGO_URI": mongo_uri, "DATABASE_NAME": database_name}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "feedmill_encode", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
