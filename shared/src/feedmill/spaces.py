"""Embedding spaces: one collection of vectors for each model revision, and a pointer to the active one.

``post_embeddings.<space>`` holds ``{_id, vector, contentHash, updatedAt}``: the post's id, a BSON Binary float32 vector
(subtype 9), and the time of the write by the server's own clock (``$currentDate``), so that a reader that polls by
``updatedAt`` compares times of one clock. ``vector_spaces`` holds one document per space and
``{_id: "active", space}``.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import sys
from array import array
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from bson.binary import VECTOR_SUBTYPE, Binary, BinaryVectorDtype

from feedmill.contract import ENCODE, SPACES_COLLECTION, VECTORS_COLLECTION_PREFIX
from feedmill.errors import MessageError, ModelError, Reject
from feedmill.ids import PostId
from feedmill.store import ChangeFeed, Document, Store, Write, WriteReport

Vector = bytes
"""Numbers as float32, little-endian, one after another: ``row.astype("<f4").tobytes()`` of a NumPy row."""

FLOAT32_BYTES = 4

_log = logging.getLogger(__name__)
_ACTIVE = "active"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")
_HEADER = BinaryVectorDtype.FLOAT32.value + b"\x00"  # element type and padding, as Binary.from_vector writes them


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space. Only vectors of one model at one revision may share it."""

    name: str
    model: str
    revision: str
    dimensions: int

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == _ACTIVE:
            raise ModelError(f"space {self.name!r}: expected 1 to 60 of a-z, 0-9 and '-', and not 'active'")
        if self.dimensions < 1:
            raise ModelError(f"space {self.name}: expected at least 1 dimension, got {self.dimensions}")

    @property
    def collection(self) -> str:
        return VECTORS_COLLECTION_PREFIX + self.name


@dataclass(frozen=True, slots=True)
class VectorWrite:
    """A post's vector, to be stored."""

    id: PostId
    vector: Vector
    content_hash: str


@dataclass(frozen=True, slots=True)
class StoredVector:
    """A post's vector, as stored."""

    id: PostId
    vector: Vector
    updated_at: datetime | None


async def register_space(store: Store, space: Space) -> None:
    """Make ``space`` known and index its collection. Repeating it changes nothing.

    Raises:
        ModelError: the name belongs to a space with another revision or other dimensions.
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
    known = (await store.find(SPACES_COLLECTION, [space.name]))[space.name]
    if (known.get("revision"), known.get("dimensions")) != (space.revision, space.dimensions):
        raise ModelError(
            f"space {space.name} is registered with revision {known.get('revision')} and {known.get('dimensions')} "
            f"dimensions: expected revision {space.revision} and {space.dimensions} dimensions"
        )
    await store.ensure_index(space.collection, "updatedAt")


async def ensure_active(store: Store, name: str) -> str:
    """Make ``name`` the active space if none is, atomically; answer the active space's name. Raises Outage."""
    fields = {"space": name, "changedAt": datetime.now(UTC)}
    await _write_one(store, Write(_ACTIVE, {"$setOnInsert": fields}, upsert=True))
    return await active_name(store) or name


async def active_name(store: Store) -> str | None:
    """The active space's name; None before the first space was made active. Raises Outage."""
    pointer = (await store.find(SPACES_COLLECTION, [_ACTIVE])).get(_ACTIVE)
    return str(pointer["space"]) if pointer else None


async def active_space(store: Store) -> Space | None:
    """The active space; None before the first space was made active.

    Raises:
        ModelError: the pointer names a space that was never registered.
        Outage: the database is away.
    """
    name = await active_name(store)
    return await _known_space(store, name) if name is not None else None


async def activate(store: Store, name: str) -> None:
    """Point to ``name`` instead of the space that is active now, atomically.

    Raises:
        ModelError: the space was never registered.
        Outage: the database is away.
    """
    await _known_space(store, name)
    update = {"$set": {"space": name}, "$currentDate": {"changedAt": True}}
    await _write_one(store, Write(_ACTIVE, update, upsert=True))


async def write_vectors(
    store: Store, space: Space, writes: Sequence[VectorWrite], *, upsert_posts: bool = False
) -> WriteReport:
    """Store vectors in ``space`` and, while it is the active one, in ``posts.embedding`` as arrays of floats.

    Posts that do not exist are not made unless ``upsert_posts``; they are counted as ``missing``. The pointer is read
    after the vectors are written: a switch at that very moment can leave ``posts.embedding`` of these posts in the old
    space until they are encoded again, ``post_embeddings`` never.

    Raises:
        Outage: the database is away. Some of the writes may have happened: write again.
    """
    errors: list[MessageError | None] = [_vector_error(space, write) for write in writes]
    await _write_sound(store, space.collection, [_vector_update(write) for write in writes], errors)
    missing = 0
    if await active_name(store) == space.name:
        posts = [_post_update(write, error, upsert=upsert_posts) for write, error in zip(writes, errors, strict=True)]
        missing = await _write_sound(store, ENCODE.collection, posts, errors)
    return WriteReport(errors, missing)


async def read_vectors(store: Store, space: Space, ids: Iterable[PostId]) -> dict[PostId, Vector]:
    """The vectors of ``ids`` that ``space`` has. Raises Outage."""
    documents = await store.find(space.collection, ids, {"vector": 1})
    stored = (_stored(document, space.dimensions) for document in documents.values())
    return {entry.id: entry.vector for entry in stored if entry is not None}


async def stream_vectors(store: Store, space: Space) -> AsyncGenerator[list[StoredVector], None]:
    """All vectors of ``space``, in lists. Documents that hold no vector of the space's length are left out, with a
    warning. Raises Outage."""
    async with aclosing(store.scan(space.collection, projection={"vector": 1, "updatedAt": 1})) as batches:
        async for batch in batches:
            stored = [_stored(document, space.dimensions) for document in batch]
            sound = [entry for entry in stored if entry is not None]
            if len(sound) < len(batch):
                _log.warning(
                    "documents without a float32 vector of %d numbers were left out: space=%s count=%d",
                    space.dimensions,
                    space.name,
                    len(batch) - len(sound),
                )
            yield sound


async def stream_ids(store: Store, space: Space) -> AsyncGenerator[list[PostId], None]:
    """The ids of all documents of ``space``, in lists. Raises Outage."""
    async with aclosing(store.scan(space.collection, projection={"_id": 1}, batch_size=10_000)) as batches:
        async for batch in batches:
            yield [document["_id"] for document in batch]


async def changed_since(store: Store, space: Space, since: datetime | None) -> dict[PostId, datetime]:
    """When each vector was last written, of those written at ``since`` or later (None: of all). Raises Outage."""
    query = {"updatedAt": {"$gte": since}} if since is not None else {}
    changed: dict[PostId, datetime] = {}
    async with aclosing(store.scan(space.collection, query, {"updatedAt": 1}, 10_000)) as batches:
        async for batch in batches:
            times = ((document["_id"], document.get("updatedAt")) for document in batch)
            changed.update((post_id, time) for post_id, time in times if isinstance(time, datetime))
    return changed


def watch_vectors(store: Store, space: Space, resume_token: Mapping[str, Any] | None = None) -> ChangeFeed:
    """The changes of the vectors of ``space``."""
    return store.watch(space.collection, resume_token)


def content_hash(*texts: str) -> str:
    """A short fingerprint of what was encoded: the first 32 hex digits of the texts' SHA-256."""
    joined = "\x00".join(texts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


async def _known_space(store: Store, name: str) -> Space:
    document = (await store.find(SPACES_COLLECTION, [name])).get(name)
    if document is None:
        raise ModelError(f"space {name} is not registered in {SPACES_COLLECTION}")
    return Space(name, str(document["model"]), str(document["revision"]), int(document["dimensions"]))


async def _write_one(store: Store, write: Write) -> None:
    """Write to ``vector_spaces``. Two first writers of one document collide harmlessly: one of them tries again."""
    for _ in range(3):
        error = (await store.write(SPACES_COLLECTION, [write])).errors[0]
        if error is None:
            return
    raise ModelError(f"{SPACES_COLLECTION} can't be written: {error}")


async def _write_sound(
    store: Store, collection: str, writes: Sequence[Write], errors: list[MessageError | None]
) -> int:
    """Write those without an error so far, note their errors in ``errors``; answer how many found no document."""
    sound = [position for position, error in enumerate(errors) if error is None]
    report = await store.write(collection, [writes[position] for position in sound])
    for position, error in zip(sound, report.errors, strict=True):
        errors[position] = error
    return report.missing


def _vector_update(write: VectorWrite) -> Write:
    fields = {"vector": Binary(_HEADER + write.vector, VECTOR_SUBTYPE), "contentHash": write.content_hash}
    return Write(write.id, {"$set": fields, "$currentDate": {"updatedAt": True}}, upsert=True)


def _post_update(write: VectorWrite, error: MessageError | None, *, upsert: bool) -> Write:
    numbers = [] if error else _numbers(write.vector).tolist()
    return Write(write.id, {"$set": {"embedding": numbers}}, upsert=upsert)


def _vector_error(space: Space, write: VectorWrite) -> Reject | None:
    if len(write.vector) != space.dimensions * FLOAT32_BYTES:
        got = len(write.vector) / FLOAT32_BYTES
        return Reject("bad_vector", f"the vector has {got:g} numbers: expected {space.dimensions} for {space.name}")
    if not math.isfinite(sum(_numbers(write.vector))):
        return Reject("bad_vector", "the vector holds NaN or an infinity: expected finite numbers")
    return None


def _numbers(vector: Vector) -> array[float]:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _stored(document: Document, dimensions: int) -> StoredVector | None:
    post_id, packed, updated_at = document["_id"], document.get("vector"), document.get("updatedAt")
    if not isinstance(post_id, (ObjectId, str)) or not isinstance(packed, Binary):
        return None
    is_float32 = packed.subtype == VECTOR_SUBTYPE and packed[: len(_HEADER)] == _HEADER
    if not is_float32 or len(packed) != len(_HEADER) + dimensions * FLOAT32_BYTES:
        return None
    return StoredVector(post_id, packed[len(_HEADER) :], updated_at if isinstance(updated_at, datetime) else None)
