"""The follower on a real database: load, time from write to findable, restart, and the first system's fetch."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bson import ObjectId

from data import clustered
from feedmill.settings import StoreSettings, read
from feedmill.spaces import Space, VectorWrite, activate, register_space, write_vectors
from feedmill.store import Store
from feedmill_hint.follow import Follower
from feedmill_hint.settings import FollowSettings
from feedmill_local.database import Database
from measure import quantiles

SPACE = Space("bench", "model", "r1", 384)
PORTION = 500
INSERTS = 20


def measure_following(posts: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database.start(Path(folder) / "database")
        try:
            return asyncio.run(_measure(database.uri, posts, Path(folder) / "snapshots"))
        finally:
            database.stop()


async def _measure(uri: str, posts: int, snapshots: Path) -> dict[str, Any]:
    store = Store.open(read(StoreSettings, uri=uri, database="feedmill_bench"), "bench")
    vectors = clustered(posts)
    ids = [ObjectId() for _ in range(posts)]
    await register_space(store, SPACE)
    await activate(store, SPACE.name)
    for start in range(0, posts, PORTION):
        await _write(store, ids[start : start + PORTION], vectors[start : start + PORTION])
    figures: dict[str, Any] = {"posts": posts}
    settings = read(FollowSettings, index_exact_below=min(10_000, posts // 2), index_snapshot_dir=str(snapshots))
    async with _following(store, settings) as (follower, seconds):
        figures["ready_without_snapshot_seconds"] = seconds
        figures["insert_to_findable_ms"] = quantiles([await _findable(store, follower) for _ in range(INSERTS)])
        while not (snapshots / SPACE.name / "manifest.json").exists():
            await asyncio.sleep(0.05)
    async with _following(store, settings) as (_, seconds):
        figures["ready_from_snapshot_seconds"] = seconds
    figures["first_system_fetch_seconds"] = await _fetch_all(store)
    await store.close()
    return figures


@asynccontextmanager
async def _following(store: Store, settings: FollowSettings) -> AsyncIterator[tuple[Follower, float]]:
    follower = Follower(store, settings)
    began = time.perf_counter()
    task = asyncio.create_task(follower.run())
    try:
        while follower.snapshot is None:
            await asyncio.sleep(0.01)
        yield follower, time.perf_counter() - began
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _findable(store: Store, follower: Follower) -> float:
    assert follower.snapshot is not None
    post_id = ObjectId()
    began = time.perf_counter()
    await _write(store, [post_id], clustered(1, seed=int(began * 1e6) % 2**31))
    while not follower.snapshot.index.vectors([post_id]):
        await asyncio.sleep(0.005)
    return time.perf_counter() - began


async def _write(store: Store, ids: list[ObjectId], vectors: Any) -> None:
    packed = [VectorWrite(i, row.astype("<f4").tobytes(), "hash") for i, row in zip(ids, vectors, strict=True)]
    assert (await write_vectors(store, SPACE, packed, upsert_posts=True)).errors == [None] * len(ids)


async def _fetch_all(store: Store) -> float:
    """What the first system did for every hint before it could compute anything."""
    began = time.perf_counter()
    rows = [document["embedding"] async for batch in store.scan("posts") for document in batch]
    np.array(rows, np.float32)
    return time.perf_counter() - began
