from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from feedmill.errors import ModelError, Outage
from feedmill.ids import PostId
from feedmill.settings import read
from feedmill.spaces import (
    Space,
    VectorWrite,
    activate,
    copy_embeddings,
    ensure_active,
    read_vectors,
    register_space,
    remove_orphans,
    write_vectors,
)
from feedmill.spaces import posts as posts_module
from feedmill.store import Store, Write
from feedmill_encode.backfill.filling import Pace
from feedmill_encode.settings import UpkeepSettings
from feedmill_encode.upkeep import copying, pruning
from feedmill_encode.upkeep.copying import Copied, Copier
from feedmill_encode.upkeep.task import end, keep_up

OLD = Space("old", "pkg://old", "r1", 2)
NEW = Space("new", "pkg://new", "r1", 3)


async def add_posts(store: Store, ids: list[Any], **fields: object) -> None:
    await store.write("posts", [Write(i, {"$set": {"content": str(i), **fields}}, upsert=True) for i in ids])


async def encode(store: Store, space: Space, ids: list[Any], first: float = 1) -> None:
    vector = struct.pack(f"<{space.dimensions}f", first, *[0] * (space.dimensions - 1))
    assert (await write_vectors(store, space, [VectorWrite(i, vector, "hash") for i in ids])).errors == [None] * len(
        ids
    )


async def embeddings(store: Store, ids: list[Any]) -> dict[Any, Any]:
    return {post_id: post.get("embedding") for post_id, post in (await store.find("posts", ids)).items()}


def everywhere(ids: list[Any], vector: list[float]) -> dict[Any, list[float]]:
    return dict.fromkeys(ids, vector)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 30
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(*_: object) -> None: ...

    monkeypatch.setattr(Copier, "_let_settle", at_once)


@pytest.fixture
async def switched(store: Store) -> list[Any]:
    """Posts of two kinds of ids whose embeddings are those of the old space, just after the switch to the new one."""
    ids: list[Any] = [*(f"post {number:02}" for number in range(20)), *(ObjectId() for _ in range(20))]
    await add_posts(store, ids)
    await register_space(store, OLD)
    await ensure_active(store, OLD.name)
    await encode(store, OLD, ids)
    await register_space(store, NEW)
    await encode(store, NEW, ids)
    await add_posts(store, ["never encoded"], embedding=[5.0])
    return ids


def copier(store: Store, name: str = "one") -> Copier:
    return Copier(store, name, Pace(None), asyncio.Event())


async def test_after_a_switch_and_back_all_older_posts_follow_once(store: Store, switched: list[Any]) -> None:
    assert await copier(store).run(wait=True) == Copied("old"), "nothing was switched yet"
    for space, vector in ((NEW, [1, 0, 0]), (OLD, [1, 0])):
        await activate(store, space.name)
        assert await copier(store).run(wait=True) == Copied(space.name, True, 41, 40)
        assert await embeddings(store, switched) == everywhere(switched, vector)
        assert await copier(store).run(wait=True) == Copied(space.name, True, 41, 0), "this switch is done"
    assert await embeddings(store, ["never encoded"]) == {"never encoded": [5]}


async def test_several_share_the_work_and_one_that_was_stopped_leaves_the_rest_to_the_next(
    store: Store, switched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "RANGE_POSTS", 4)
    await activate(store, NEW.name)
    stop = asyncio.Event()
    stopped = Copier(store, "stopped", Pace(1000), stop)
    monkeypatch.setattr(copying, "copy_embeddings", _stopping(stop, after=3))
    first = await stopped.run(wait=True)
    monkeypatch.undo()
    assert not first.is_done
    assert 0 < first.changed < 40
    monkeypatch.setattr(copying, "RANGE_POSTS", 4)
    monkeypatch.setattr(Copier, "_let_settle", _nothing)
    both = await asyncio.gather(*(copier(store, name).run(wait=True) for name in ("one", "two")))
    assert all(copied.is_done for copied in both)
    assert first.changed + sum(copied.changed for copied in both) == 40
    assert await embeddings(store, switched) == everywhere(switched, [1, 0, 0])


async def test_what_a_worker_that_is_gone_had_in_hand_is_taken_over(
    store: Store, switched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "RANGE_POSTS", 4)
    monkeypatch.setattr(copying, "STALE_SECONDS", 0.5)
    await activate(store, NEW.name)
    in_hand = asyncio.Event()

    async def hang(*_: object) -> int:
        in_hand.set()
        return await asyncio.Future()

    quick = read(UpkeepSettings, upkeep_look_seconds=0.05, upkeep_prune_seconds=0)
    with monkeypatch.context() as patch:
        patch.setattr(copying, "copy_embeddings", hang)
        gone = asyncio.create_task(keep_up(store, quick))
        await in_hand.wait()
        await end(gone)

    async def has_followed() -> bool:
        return await embeddings(store, switched) == everywhere(switched, [1, 0, 0])

    task = asyncio.create_task(keep_up(store, quick))
    try:
        await until(has_followed)
    finally:
        await end(task)


async def _nothing(*_: object) -> None: ...


def _stopping(stop: asyncio.Event, after: int) -> Any:
    calls: list[object] = []

    async def copy(store: Store, space: Space, ids: list[Any]) -> int:
        calls.append(ids)
        if len(calls) == after:
            stop.set()
        return await copy_embeddings(store, space, ids)

    return copy


async def test_a_switch_in_the_middle_ends_the_copy_for_the_former_space(
    store: Store, switched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "RANGE_POSTS", 4)
    await activate(store, NEW.name)

    async def switch_back(store: Store, space: Space, ids: list[Any]) -> int:
        await activate(store, OLD.name)
        return await copy_embeddings(store, space, ids)

    with monkeypatch.context() as patch:
        patch.setattr(copying, "copy_embeddings", switch_back)
        assert (await copier(store).run(wait=True)).changed == 0
    await activate(store, NEW.name)
    assert (await copier(store).run(wait=True)).is_done, "a new switch to the same space is new work"
    assert await embeddings(store, switched) == everywhere(switched, [1, 0, 0])


async def test_a_vector_that_live_traffic_writes_meanwhile_wins(
    store: Store, switched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer stores the vector after it was read, and its posts.embedding before the copy's own write."""
    await activate(store, NEW.name)
    real = posts_module.read_stored
    raced: list[object] = []

    async def read_then_race(store: Store, space: Space, ids: list[Any]) -> Any:
        found = await real(store, space, ids)
        if not raced:
            raced.append(ids)
            await asyncio.sleep(0.002)  # the server's time is in milliseconds
            await encode(store, NEW, [switched[0]], first=7)
        return found

    monkeypatch.setattr(posts_module, "read_stored", read_then_race)
    await copy_embeddings(store, NEW, switched)
    assert await embeddings(store, switched[:2]) == {switched[0]: [7, 0, 0], switched[1]: [1, 0, 0]}


def soon() -> datetime:
    """Later than all that was written, by however much the clocks differ."""
    return datetime.now(UTC) + timedelta(minutes=1)


async def test_vectors_of_posts_that_are_gone_are_removed_and_young_ones_stay(store: Store) -> None:
    await register_space(store, OLD)
    there: list[PostId] = ["a", ObjectId()]
    gone: list[PostId] = ["b", ObjectId()]
    await add_posts(store, there)
    await add_posts(store, ["marked"], deleted=True)
    await encode(store, OLD, [*there, *gone, "marked"])
    stop = asyncio.Event()
    young = await pruning.prune(store, OLD, 3600, Pace(None), stop)
    assert (young.looked, young.removed, young.is_done) == (5, 0, True)
    old = await pruning.prune(store, OLD, -60, Pace(None), stop)
    assert (old.looked, old.removed) == (5, 2)
    assert (await read_vectors(store, OLD, [*there, *gone, "marked"])).keys() == {*there, "marked"}


@pytest.mark.parametrize("what", ["the post comes back", "the vector is written anew"])
async def test_what_changes_while_it_is_pruned_keeps_its_vector(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    await register_space(store, OLD)
    await encode(store, OLD, ["gone", "raced"])
    await asyncio.sleep(0.05)
    real = store.delete

    async def delete(collection: str, ids: Any, where: Any = None) -> int:
        if what == "the post comes back":
            await add_posts(store, ["raced"])
            return await real(collection, ids, where)
        moment = datetime.now(UTC) + timedelta(hours=1)
        await store.write(OLD.collection, [Write("raced", {"$set": {"updatedAt": moment}})])
        return await real(collection, ids, where)

    monkeypatch.setattr(store, "delete", delete)
    assert await remove_orphans(store, OLD, ["gone", "raced"], soon()) == 1
    found = await store.find(OLD.collection, ["gone", "raced"])
    assert found.keys() == {"raced"}
    assert found["raced"]["contentHash"] == "hash"
    assert (await read_vectors(store, OLD, ["raced"])).keys() == {"raced"}


async def test_a_database_that_seems_to_be_another_one_is_left_alone(store: Store) -> None:
    await register_space(store, OLD)
    await encode(store, OLD, ["a", "b", "c"])
    await add_posts(store, ["x"])
    with pytest.raises(ModelError, match="there are 1 posts"):
        await pruning.check_posts(store, OLD)
    await pruning.prune_when_due(store, 3600, -60, Pace(None), asyncio.Event())
    assert len(await read_vectors(store, OLD, ["a", "b", "c"])) == 3


async def test_the_worker_keeps_up_by_itself_through_an_outage_and_prunes_in_turns(
    store: Store, switched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await activate(store, NEW.name)
    await store.delete("posts", switched[:1])
    quick = read(UpkeepSettings, upkeep_look_seconds=0.05, upkeep_grace_seconds=0)
    real, away = copying.active_pointer, [True]

    async def pointer(store: Store) -> Any:
        if away:
            away.clear()
            raise Outage("database", "away")
        return await real(store)

    async def is_pruned() -> bool:
        return not await read_vectors(store, OLD, switched[:1])

    async def has_followed() -> bool:
        return await embeddings(store, switched[1:]) == everywhere(switched[1:], [1, 0, 0])

    monkeypatch.setattr(copying, "active_pointer", pointer)
    tasks = [asyncio.create_task(keep_up(store, quick)) for _ in range(2)]
    try:
        await until(is_pruned)
        await until(has_followed)
    finally:
        for task in tasks:
            await end(task)
    documents = await store.find("vector_spaces", ["old", "new"])
    turns = {name: document["prune"]["at"] for name, document in documents.items()}
    await pruning.prune_when_due(store, 3600, 0, Pace(None), asyncio.Event())
    assert {n: d["prune"]["at"] for n, d in (await store.find("vector_spaces", ["old", "new"])).items()} == turns


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["copy", "--json"], 0, '"is_done": true'),
        (["prune", "--json", "--grace-seconds", "0"], 0, '"removed": 1'),
        (["prune", "old"], 0, "'looked': 41, 'removed': 0"),
        (["prune", "nowhere"], 1, "nowhere is not registered"),
        (["prune", "--grace-seconds", "-1"], 2, "0 or more"),
        (["copy", "--rate", "0"], 2, "above 0"),
    ],
)
async def test_the_commands(
    store: Store,
    switched: list[Any],
    mongo_uri: str,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    await encode(store, OLD, ["orphan"])
    await asyncio.sleep(0.05)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "feedmill_encode", "spaces", *arguments],
        env={**os.environ, "MONGO_URI": mongo_uri, "DATABASE_NAME": store.settings.database},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    if "--json" in arguments:
        json.loads(done.stdout)
