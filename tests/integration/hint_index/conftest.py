from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from feedmill.settings import StoreSettings, read
from feedmill.spaces import Space, VectorWrite, activate, ensure_active, register_space, write_vectors
from feedmill.store import Store, Write
from feedmill_hint.follow import Follower
from feedmill_hint.settings import FollowSettings


class Site:
    """A database with posts and vectors, and a follower of it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def space(self, name: str, dimensions: int = 3) -> Space:
        """A new space, made the active one."""
        made = Space(name, "pkg://model", "r1", dimensions)
        await register_space(self.store, made)
        if await ensure_active(self.store, name) != name:
            await activate(self.store, name)
        return made

    async def encode(self, space: Space, vectors: dict[Any, tuple[float, ...]], *, posts: bool = True) -> None:
        packed = [VectorWrite(i, struct.pack(f"<{len(v)}f", *v), "hash") for i, v in vectors.items()]
        assert (await write_vectors(self.store, space, packed, upsert_posts=posts)).errors == [None] * len(packed)

    async def post(self, post_id: Any, **fields: object) -> None:
        await self.store.write("posts", [Write(post_id, {"$set": fields}, upsert=True)])

    async def delete(self, collection: str, *ids: Any) -> None:
        await self.store._database[collection].delete_many({"_id": {"$in": list(ids)}})

    @asynccontextmanager
    async def follower(self, mode: str, **settings: object) -> AsyncIterator[Follower]:
        quick = {"space_poll_seconds": 0.05, "index_poll_seconds": 0.05, "index_reconcile_seconds": 0.2}
        follower = Follower(self.store, read(FollowSettings, follow=mode, **{**quick, **settings}))
        task = asyncio.create_task(follower.run())
        try:
            yield follower
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert [other for other in asyncio.all_tasks() if other.get_name().startswith("mirror")] == []


@pytest.fixture
async def site(mongo_uri: str, database_name: str) -> AsyncIterator[Site]:
    store = Store.open(read(StoreSettings, uri=mongo_uri, database=database_name), "feedmill-test")
    yield Site(store)
    await store.close()


@pytest.fixture
def eventually() -> Callable[..., Any]:
    async def wait(condition: Callable[[], bool], timeout_seconds: float = 20) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            await asyncio.sleep(0.01)

    return wait
