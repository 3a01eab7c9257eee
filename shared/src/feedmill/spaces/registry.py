"""``vector_spaces``: which spaces there are, how full they are, and which one is active."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId

from feedmill.contract import ENCODE, SPACES_COLLECTION
from feedmill.errors import ModelError
from feedmill.ids import PostId
from feedmill.spaces.space import ACTIVE, Space
from feedmill.store import Document, Store, Write

_LOOK_AT_ONCE = 1000
_LOOK_SECONDS = 0.5

DROPPING = "dropping"
"""The state of a space whose vectors are being removed: it can't be made the active one any more."""


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """A space as ``vector_spaces`` tells it."""

    space: Space
    is_active: bool
    state: str
    """``registered``, ``backfilling``, ``ready`` (a backfill went through) or ``dropping``."""
    vectors: int
    """Vectors in its collection: the server's own estimate, which costs it nothing."""
    backfill: Mapping[str, Any]
    """``{state: running or done, done, total, updatedAt}``; empty before the first one."""


async def register_space(store: Store, space: Space) -> None:
    """Make ``space`` known and index its collection. Repeating it changes nothing.

    Raises:
        ModelError: the name belongs to a space with another revision or other dimensions, or is being dropped.
        Outage: the database is away.
    """
    fields = {
        "model": space.model,
        "revision": space.revision,
        "dimensions": space.dimensions,
        "state": "registered",
        "createdAt": datetime.now(UTC),
    }
    await _write_one(store, Write(space.name, {"$setOnInsert": fields}, upsert=True))
    known = (await store.find(SPACES_COLLECTION, [space.name])).get(space.name, {})
    if (known.get("revision"), known.get("dimensions")) != (space.revision, space.dimensions):
        raise ModelError(
            f"space {space.name} is registered with revision {known.get('revision')} and {known.get('dimensions')} "
            f"dimensions: expected revision {space.revision} and {space.dimensions} dimensions"
        )
    await store.ensure_index(space.collection, "updatedAt")


async def ensure_active(store: Store, name: str) -> str:
    """Make ``name`` the active space if none is, atomically; answer the active space's name. Raises Outage."""
    fields = {"space": name, "changedAt": datetime.now(UTC)}
    await _write_one(store, Write(ACTIVE, {"$setOnInsert": fields}, upsert=True))
    return await active_name(store) or name


async def active_name(store: Store) -> str | None:
    """The active space's name; None before the first space was made active. Raises Outage."""
    pointer = await active_pointer(store)
    return pointer.space if pointer else None


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which space is active, and since when."""

    space: str
    changed_at: datetime | None
    is_switch: bool
    """Whether another space may have been active before: then ``posts.embedding`` may hold its vectors still."""


async def active_pointer(store: Store) -> Pointer | None:
    """The pointer to the active space; None before the first space was made active. Raises Outage."""
    found = (await store.find(SPACES_COLLECTION, [ACTIVE])).get(ACTIVE)
    if found is None:
        return None
    changed_at = found.get("changedAt")
    moment = changed_at if isinstance(changed_at, datetime) else None
    return Pointer(str(found["space"]), moment, bool(found.get("switched")))


async def active_space(store: Store) -> Space | None:
    """The active space; None before the first space was made active.

    Raises:
        ModelError: the pointer names a space that was never registered.
        Outage: the database is away.
    """
    name = await active_name(store)
    return _space(await _known(store, name)) if name is not None else None


async def activate(store: Store, name: str) -> None:
    """Point to ``name`` instead of the space that is active now, atomically. ``posts.embedding`` of older posts is
    brought along afterwards (:func:`feedmill.spaces.posts.copy_embeddings`).

    Raises:
        ModelError: the space was never registered, or is being dropped.
        Outage: the database is away.
    """
    await _known_to_stay(store, name)
    former = await active_name(store)
    await _write_one(store, _pointing_to(name))
    try:
        # A drop marks its space before it looks at the pointer, and this looks after it has written: one of them sees
        # the other.
        await _known_to_stay(store, name)
    except ModelError:
        if former is not None:
            await store.write(SPACES_COLLECTION, [_pointing_to(former, where={"space": name})])
        raise


async def list_spaces(store: Store) -> list[SpaceInfo]:
    """All registered spaces, by name. Raises Outage."""
    documents: list[Document] = []
    async with aclosing(store.scan(SPACES_COLLECTION)) as batches:
        async for batch in batches:
            documents.extend(batch)
    active = next((str(document["space"]) for document in documents if document["_id"] == ACTIVE), None)
    sound = [document for document in documents if document["_id"] != ACTIVE and "dimensions" in document]
    return [await _info(store, document, active) for document in sorted(sound, key=lambda entry: str(entry["_id"]))]


async def drop_space(store: Store, name: str) -> int:
    """Remove a space and its vectors; answer how many there were (the server's estimate).

    Stop the workers that encode into it first: they would go on to write. Interrupted, it can be repeated.

    Raises:
        ModelError: it is the active space, or was never registered.
        Outage: the database is away.
    """
    document = await _known(store, name)
    await _write_one(store, Write(name, {"$set": {"state": DROPPING}}))
    if await active_name(store) == name:
        await _write_one(store, Write(name, {"$set": {"state": str(document.get("state", "registered"))}}))
        raise ModelError(f"space {name} is the active one: activate another space first")
    collection = _space(document).collection
    vectors = await store.count(collection)
    await store.drop(collection)
    await store.delete(SPACES_COLLECTION, [name])
    return vectors


async def coverage(store: Store, space: Space, *, exact: bool = True, patience_seconds: float = 0.0) -> tuple[int, int]:
    """How many posts have a vector in ``space``, and how many posts there are.

    Exact: both collections' ids are read and compared (24 bytes a post in memory at most, a few seconds for a million).
    Otherwise the servers' estimates of both sizes, at no cost: vectors whose post is gone count there too.

    Args:
        patience_seconds: how long vectors that are not there yet are waited for. While a site lives, there are always
            posts that were stored a moment ago and are being encoded.

    Raises:
        Outage: the database is away.
    """
    if not exact:
        posts = await store.count(ENCODE.collection)
        return min(await store.count(space.collection), posts), posts
    encoded: set[PostId] = set()
    async for post_id in _ids(store, space.collection):
        encoded.add(post_id)
    missing: list[PostId] = []
    posts = 0
    async for post_id in _ids(store, ENCODE.collection):
        posts += 1
        if post_id not in encoded:
            missing.append(post_id)
    encoded.clear()
    left = await _without_vector(store, space, missing, patience_seconds)
    return posts - left, posts


async def _without_vector(store: Store, space: Space, ids: list[PostId], patience_seconds: float) -> int:
    """How many of these posts exist and get no vector within the time."""
    deadline = time.monotonic() + patience_seconds
    while ids and patience_seconds:
        left: list[PostId] = []
        for start in range(0, len(ids), _LOOK_AT_ONCE):
            some = ids[start : start + _LOOK_AT_ONCE]
            found = await store.find(space.collection, some, {"_id": 1})
            there = await store.find(ENCODE.collection, [one for one in some if one not in found], {"_id": 1})
            left.extend(there)
        ids = left
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return len(ids)


async def backfill_progress(store: Store, space: Space) -> tuple[int, int] | None:
    """How many posts the space's last backfill has looked at, and how many it has to; None before the first one.

    Raises Outage.
    """
    document = (await store.find(SPACES_COLLECTION, [space.name], {"backfill": 1})).get(space.name, {})
    backfill = document.get("backfill") or {}
    done, total = backfill.get("done"), backfill.get("total")
    return (int(done), int(total)) if isinstance(done, (int, float)) and isinstance(total, (int, float)) else None


async def note_counts(store: Store, space: Space) -> None:
    """Write the present sizes into the space's document: ``counts: {vectors, posts}``. Raises Outage."""
    counts = {"vectors": await store.count(space.collection), "posts": await store.count(ENCODE.collection)}
    await store.write(SPACES_COLLECTION, [Write(space.name, {"$set": {"counts": counts}})])


async def _ids(store: Store, collection: str) -> Any:
    async with aclosing(store.scan(collection, projection={"_id": 1}, batch_size=10_000)) as batches:
        async for batch in batches:
            for document in batch:
                if isinstance(document["_id"], (ObjectId, str)):  # what else there may be can't be asked for
                    yield document["_id"]


async def _known(store: Store, name: str) -> Document:
    document = (await store.find(SPACES_COLLECTION, [name])).get(name)
    if document is None or name == ACTIVE:
        raise ModelError(f"space {name} is not registered in {SPACES_COLLECTION}")
    return document


async def _known_to_stay(store: Store, name: str) -> None:
    if (await _known(store, name)).get("state") == DROPPING:
        raise ModelError(f"space {name} is being dropped")


def _space(document: Document) -> Space:
    return Space(str(document["_id"]), str(document["model"]), str(document["revision"]), int(document["dimensions"]))


async def _info(store: Store, document: Document, active: str | None) -> SpaceInfo:
    space = _space(document)
    backfill = {key: document.get("backfill", {}).get(key) for key in ("state", "done", "total", "updatedAt")}
    return SpaceInfo(
        space,
        space.name == active,
        str(document.get("state", "registered")),
        await store.count(space.collection),
        backfill if backfill["state"] else {},
    )


def _pointing_to(name: str, where: Mapping[str, Any] | None = None) -> Write:
    update = {"$set": {"space": name, "switched": True}, "$currentDate": {"changedAt": True}}
    return Write(ACTIVE, update, upsert=where is None, where=where or {})


async def _write_one(store: Store, write: Write) -> None:
    """Write to ``vector_spaces``. Two first writers of one document collide harmlessly: one of them tries again."""
    for _ in range(3):
        error = (await store.write(SPACES_COLLECTION, [write])).errors[0]
        if error is None:
            return
    raise ModelError(f"{SPACES_COLLECTION} can't be written: {error}")
