from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import bson
import numpy as np
import pytest
from bson import ObjectId

from feedmill.errors import Outage
from feedmill.store import StreamUnsupported, Write
from feedmill_hint.follow import Follower
from feedmill_local.database import Database

MODES = pytest.mark.parametrize("mode", ["stream", "poll"])
ENGINES = pytest.mark.parametrize(
    "engine", [{}, {"index_exact_below": 1}, {"index_engine": "qdrant", "qdrant_url": ":memory:"}], ids=str
)


def ids(follower: Follower) -> set[Any]:
    return follower.snapshot.index.ids() if follower.snapshot else set()


def direction(follower: Follower, post_id: Any) -> list[float]:
    assert follower.snapshot is not None
    found = follower.snapshot.index.vectors([post_id])
    return [round(float(number), 3) for number in found.get(post_id, np.zeros(0))]


@ENGINES
@MODES
async def test_the_index_is_loaded_and_follows_new_changed_and_removed_vectors(
    site: Any, eventually: Any, mode: str, engine: dict[str, Any]
) -> None:
    space = await site.space("one")
    first = ObjectId()
    await site.encode(space, {first: (1, 0, 0), "b": (0, 1, 0)})
    async with site.follower(mode, **engine) as follower:
        assert follower.missing()
        await eventually(lambda: follower.missing() is None)
        assert ids(follower) == {first, "b"}
        assert follower.state()["follow"] == mode
        await site.encode(space, {"c": (0, 0, 2)})
        await eventually(lambda: "c" in ids(follower))
        await site.encode(space, {"b": (0, 0, 3)})
        await eventually(lambda: direction(follower, "b") == [0, 0, 1])
        await site.delete(space.collection, first)
        await eventually(lambda: ids(follower) == {"b", "c"})


async def test_auto_takes_the_change_stream_where_there_is_one(site: Any, eventually: Any) -> None:
    await site.space("one")
    async with site.follower("auto") as follower:
        await eventually(lambda: follower.snapshot is not None)
        assert follower.state()["follow"] == "stream"


async def test_auto_polls_where_there_is_no_change_stream(
    site: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise StreamUnsupported("not here")

    monkeypatch.setattr(site.store, "watch", unsupported)
    space = await site.space("one")
    async with site.follower("auto", index_backoff_max_seconds=0.1) as follower:
        await eventually(lambda: follower.snapshot is not None)
        assert follower.state()["follow"] == "poll"
        await site.encode(space, {"a": (1, 0, 0)})
        await eventually(lambda: ids(follower) == {"a"})


@MODES
async def test_no_active_space_is_no_obstacle_and_the_first_one_is_picked_up(
    site: Any, eventually: Any, mode: str
) -> None:
    async with site.follower(mode) as follower:
        await eventually(lambda: follower.missing() is None)
        assert follower.snapshot is None
        space = await site.space("one")
        await site.encode(space, {"a": (1, 0, 0)})
        await eventually(lambda: ids(follower) == {"a"})


@MODES
async def test_a_switch_builds_the_new_index_beside_the_old_and_swaps(site: Any, eventually: Any, mode: str) -> None:
    old = await site.space("old", 2)
    await site.encode(old, {"a": (1, 0)})
    async with site.follower(mode) as follower:
        await eventually(lambda: ids(follower) == {"a"})
        before = follower.snapshot
        new = await site.space("new", 3)
        seen = set()
        while follower.snapshot is before:
            seen.add(follower.missing())
            await asyncio.sleep(0)
        assert seen <= {None}, "the old index answers until the new one is complete"
        assert (follower.snapshot.space, follower.snapshot.index.dimensions) == (new, 3)
        assert before.index.ids() == {"a"}, "who began with the old index ends with it"
        await site.encode(new, {"b": (1, 0, 0)})
        await eventually(lambda: ids(follower) == {"b"})
        await site.space("old", 2)
        await eventually(lambda: follower.snapshot.space == old and ids(follower) == {"a"})


@MODES
async def test_an_active_space_that_nobody_registered_is_said_and_healed(site: Any, eventually: Any, mode: str) -> None:
    await site.store.write("vector_spaces", [Write("active", {"$set": {"space": "one"}}, upsert=True)])
    async with site.follower(mode) as follower:
        await eventually(lambda: "not registered" in (follower.missing() or ""))
        await site.space("one")
        await eventually(lambda: follower.missing() is None)


@MODES
async def test_vectors_without_a_direction_are_left_out(site: Any, eventually: Any, mode: str) -> None:
    space = await site.space("one")
    await site.encode(space, {"zero": (0, 0, 0), "good": (1, 0, 0)})
    async with site.follower(mode) as follower:
        await eventually(lambda: ids(follower) == {"good"})
        await site.encode(space, {"good": (0, 0, 0), "next": (1, 0, 0)})
        await eventually(lambda: ids(follower) == {"next"})


async def test_a_dropped_space_empties_the_index_and_fills_again(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    await site.encode(space, {"a": (1, 0, 0)})
    async with site.follower("stream") as follower:
        await eventually(lambda: ids(follower) == {"a"})
        await site.store._database[space.collection].drop()
        await eventually(lambda: follower.snapshot is not None and ids(follower) == set())
        await site.encode(space, {"b": (1, 0, 0)})
        await eventually(lambda: ids(follower) == {"b"})


@MODES
async def test_a_database_that_was_killed_is_followed_again(
    site: Any, eventually: Any, database_server: Database, mode: str
) -> None:
    space = await site.space("one")
    await site.encode(space, {"a": (1, 0, 0), "b": (0, 1, 0)})
    async with site.follower(mode, index_stale_seconds=0.5, index_backoff_max_seconds=0.5) as follower:
        await eventually(lambda: ids(follower) == {"a", "b"})
        await asyncio.to_thread(database_server.kill)
        await eventually(lambda: "brought up to date" in (follower.missing() or ""))
        assert ids(follower) == {"a", "b"}
        await asyncio.to_thread(database_server.boot)
        await site.encode(space, {"c": (0, 0, 1)})
        await site.delete(space.collection, "a")
        await eventually(lambda: ids(follower) == {"b", "c"}, 40)
        await eventually(lambda: follower.missing() is None)


async def test_a_follower_that_is_stopped_while_it_loads_leaves_nothing_behind(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    await site.encode(space, {f"p{number}": (1, number, 0) for number in range(500)})
    async with site.follower("stream") as follower:
        await eventually(lambda: follower.state()["missing"] is None or "loaded" in follower.state()["missing"])


@MODES
async def test_a_restart_begins_with_the_snapshot_and_catches_up(
    site: Any, eventually: Any, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = await site.space("one")
    await site.encode(space, {f"p{number}": (1, number, 1) for number in range(40)})
    kept = {"index_exact_below": 20, "index_snapshot_dir": str(tmp_path), "index_snapshot_seconds": 0.01}
    async with site.follower(mode, **kept) as follower:
        await eventually(lambda: follower.missing() is None)
        assert follower.state()["kind"] == "ivf"
        await eventually((tmp_path / "one" / "manifest.json").exists)
    await site.encode(space, {"p1": (-1, 0, 0), "new": (0, 0, -1)})
    await site.delete(space.collection, "p2")
    monkeypatch.setattr("feedmill_hint.mirror.stream_vectors", None)  # a load would fail
    async with site.follower(mode, **kept) as follower:
        await eventually(lambda: follower.missing() is None)
        await eventually(lambda: "new" in ids(follower) and "p2" not in ids(follower))
        assert direction(follower, "p1") == [-1, 0, 0]
        assert len(ids(follower)) == 40
        await site.encode(space, {"newer": (0, -1, 0)})
        await eventually(lambda: "newer" in ids(follower))


@pytest.mark.parametrize("harm", ["damaged", "resume token unknown"])
async def test_a_snapshot_that_is_of_no_use_is_made_good(
    site: Any, eventually: Any, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    space = await site.space("one")
    await site.encode(space, {f"p{number}": (1, number, 1) for number in range(40)})
    kept = {"index_exact_below": 20, "index_snapshot_dir": str(tmp_path), "index_backoff_max_seconds": 0.1}
    manifest = tmp_path / "one" / "manifest.json"
    async with site.follower("stream", **kept) as follower:
        await eventually(manifest.exists)
        await eventually(lambda: follower.missing() is None)
    if harm == "damaged":
        [file] = manifest.parent.glob("*.faiss")
        file.write_bytes(file.read_bytes()[:-1])
    else:
        content = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**content, "token": bson.encode({"_data": "00"}).hex()}))
    await site.encode(space, {"new": (0, 0, -1)})
    await site.delete(space.collection, "p2")
    async with site.follower("stream", **kept) as follower:
        await eventually(lambda: follower.missing() is None)
        await eventually(lambda: "new" in ids(follower) and "p2" not in ids(follower) and len(ids(follower)) == 40)
    assert "no snapshot" in caplog.text if harm == "damaged" else "changes were lost" in caplog.text


async def test_an_index_that_would_not_fit_says_so_and_is_made_when_it_does(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    await site.encode(space, {f"p{number}": (1, number, 1) for number in range(40)})
    async with site.follower("auto", index_max_bytes=5000, index_backoff_max_seconds=0.1) as follower:
        await eventually(lambda: "FEEDMILL_INDEX_MAX_BYTES" in (follower.missing() or ""))
        await site.delete(space.collection, *(f"p{number}" for number in range(35)))
        await eventually(lambda: follower.missing() is None)
        assert len(ids(follower)) == 5


async def test_lists_are_learnt_from_the_whole_space_or_else_from_what_comes_first(
    site: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    space = await site.space("one")
    await site.encode(space, {f"p{number}": (1, number, 1) for number in range(40)})
    caplog.set_level("INFO")
    async with site.follower("auto", index_exact_below=20) as follower:
        await eventually(lambda: follower.missing() is None)
        assert follower.state()["kind"] == "ivf"
    assert "lists are learnt" in caplog.text
    assert "restructured" not in caplog.text

    def slow(*_: object) -> Any:
        raise Outage("database", "MaxTimeMSExpired")

    monkeypatch.setattr(site.store, "sample", slow)
    async with site.follower("auto", index_exact_below=20) as follower:
        await eventually(lambda: follower.missing() is None)
        assert (follower.state()["kind"], len(ids(follower))) == ("ivf", 40)
    assert "no sample" in caplog.text
    assert "restructured" in caplog.text


@MODES
async def test_a_last_snapshot_is_written_at_the_end_where_there_is_time(
    site: Any, eventually: Any, mode: str, tmp_path: Path
) -> None:
    space = await site.space("one")
    await site.encode(space, {f"p{number}": (1, number, 1) for number in range(40)})
    kept = {"index_exact_below": 20, "index_snapshot_dir": str(tmp_path), "index_snapshot_seconds": 3600}
    manifest = tmp_path / "one" / "manifest.json"
    async with site.follower(mode, **kept) as follower:
        await eventually(manifest.exists)
        before = manifest.read_text()
        await site.encode(space, {"new": (0, 0, -1)})
        await eventually(lambda: "new" in ids(follower))
        await eventually(lambda: follower._current.mirror._snapshots.has_changes)
    await follower.keep(0)
    assert manifest.read_text() == before, "no time"
    await follower.keep(30)
    assert json.loads(manifest.read_text())["vectors"] == 41
    after = manifest.read_text()
    await follower.keep(30)
    assert manifest.read_text() == after, "nothing has changed since"


async def test_a_switch_that_does_not_fit_beside_the_old_index_waits_and_is_said(site: Any, eventually: Any) -> None:
    """Else the pod would be killed for the sum of both, and again after every restart."""
    old, new = await site.space("old"), await site.space("new")
    names = [f"p{number}" for number in range(40)]
    for space in (old, new):
        await site.encode(space, {name: (1, number, 1) for number, name in enumerate(names)})
    await site.space("old")
    # Room for one index of forty, not for two.
    async with site.follower("auto", index_max_bytes=30_000, index_backoff_max_seconds=0.1) as follower:
        await eventually(lambda: follower.missing() is None)
        await site.space("new")
        await eventually(lambda: "answers meanwhile" in (follower.state()["next_problem"] or ""))
        assert follower.missing() is None
        assert follower.snapshot.space == old
        await site.delete(new.collection, *names[5:])
        await eventually(lambda: follower.snapshot.space == new)
        await site.encode(new, {name: (1, number, 1) for number, name in enumerate(names)})
        await eventually(lambda: len(ids(follower)) == 40)
