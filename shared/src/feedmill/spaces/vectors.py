"""The vectors of a space: written by encode and its backfill, read and followed by hint."""

from __future__ import annotations

import hashlib
import logging
import math
import sys
from array import array
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from bson.binary import VECTOR_SUBTYPE, Binary, BinaryVectorDtype

from feedmill.contract import ENCODE
from feedmill.errors import MessageError, Reject
from feedmill.ids import PostId
from feedmill.spaces.registry import active_name
from feedmill.spaces.space import Space
from feedmill.store import ChangeFeed, Document, Store, Write, WriteReport

Vector = bytes
"""Numbers as float32, little-endian, one after another: ``row.astype("<f4").tobytes()`` of a NumPy row."""

FLOAT32_BYTES = 4

_log = logging.getLogger(__name__)
NO_VECTOR = {"contentHash": {"$exists": False}}
"""Holds for a document without a vector, and so lets an upsert make one but change none."""
_HEADER = BinaryVectorDtype.FLOAT32.value + b"\x00"  # element type and padding, as Binary.from_vector writes them


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


@dataclass(frozen=True, slots=True)
class ContentState:
    """What a stored vector was made from, and when it was written."""

    content_hash: str
    updated_at: datetime | None


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
    missing = await write_posts(store, space, writes, errors, upsert=upsert_posts)
    return WriteReport(errors, missing)


async def write_posts(
    store: Store,
    space: Space,
    writes: Sequence[VectorWrite],
    errors: list[MessageError | None],
    *,
    upsert: bool = False,
) -> int:
    """Only the second half of :func:`write_vectors`: ``posts.embedding``, while ``space`` is the active one.

    Those with an error so far are left out; new errors are noted in ``errors``. Answers how many posts were missing.

    Raises:
        Outage: the database is away.
    """
    if await active_name(store) != space.name:
        return 0
    posts = [_post_update(write, error, upsert=upsert) for write, error in zip(writes, errors, strict=True)]
    return await _write_sound(store, ENCODE.collection, posts, errors)


async def write_if_unmoved(
    store: Store,
    space: Space,
    writes: Sequence[VectorWrite],
    seen: Mapping[PostId, ContentState],
    posts: Mapping[PostId, Document],
) -> int:
    """Store vectors beside live traffic: only where nobody else has written since ``seen`` (:func:`content_states`).

    Read ``seen`` before ``posts``: then whoever encodes a newer content either had written it before, and ``posts``
    hold that content, or writes it later, and this write stands back or is overwritten by it. ``posts.embedding`` is
    set where the post still has the ``content`` and ``title`` that ``posts`` hold. Answers how many vectors are stored
    now that are those of ``writes``.

    Raises:
        Outage: the database is away.
    """
    errors: list[MessageError | None] = [_vector_error(space, write) for write in writes]
    updates = [_vector_update(write, _unmoved(seen.get(write.id))) for write in writes]
    await _write_sound(store, space.collection, updates, errors)
    now = await content_states(store, space, [write.id for write in writes])
    standing = [write for write in writes if write.id in now and now[write.id].content_hash == write.content_hash]
    if standing and await active_name(store) == space.name:
        updates = [_post_update(write, None, where=_text_of(posts[write.id])) for write in standing]
        await store.write(ENCODE.collection, updates)
    return len(standing)


async def complete_posts(
    store: Store, space: Space, hashes: Mapping[PostId, str], posts: Mapping[PostId, Document]
) -> int:
    """Set ``posts.embedding`` where it is missing although ``space``, the active one, has the vector.

    Whoever is killed between the two halves of a write leaves such a post. ``hashes`` are the posts' content hashes;
    one is left alone where the vector is of another content, or where the post no longer has the ``content`` and
    ``title`` that ``posts`` hold. Answers how many posts were missing their embedding.

    Raises:
        Outage: the database is away.
    """
    if not hashes or await active_name(store) != space.name:
        return 0
    query = {"_id": {"$in": list(hashes)}, "embedding": None}
    lacking: dict[PostId, str] = {}
    async with aclosing(store.scan(ENCODE.collection, query, {"_id": 1})) as batches:
        async for batch in batches:
            lacking.update((document["_id"], hashes[document["_id"]]) for document in batch)
    vectors = await unchanged_vectors(store, space, lacking) if lacking else {}
    writes = [VectorWrite(post_id, vector, lacking[post_id]) for post_id, vector in vectors.items()]
    updates = [_post_update(write, None, where={"embedding": None, **_text_of(posts[write.id])}) for write in writes]
    await store.write(ENCODE.collection, updates)
    return len(updates)


async def content_states(store: Store, space: Space, ids: Iterable[PostId]) -> dict[PostId, ContentState]:
    """What the vectors of ``ids`` that ``space`` has were made from. Raises Outage."""
    documents = await store.find(space.collection, ids, {"contentHash": 1, "updatedAt": 1})
    return {
        post_id: ContentState(str(document["contentHash"]), document.get("updatedAt"))
        for post_id, document in documents.items()
        if "contentHash" in document
    }


async def unchanged_vectors(store: Store, space: Space, hashes: Mapping[PostId, str]) -> dict[PostId, Vector]:
    """The stored vectors of those posts whose content has the hash that is given for it. Raises Outage."""
    documents = await store.find(space.collection, hashes, {"vector": 1, "contentHash": 1})
    same = (document for document in documents.values() if document.get("contentHash") == hashes[document["_id"]])
    stored = (_stored(document, space.dimensions) for document in same)
    return {entry.id: entry.vector for entry in stored if entry is not None}


async def read_vectors(store: Store, space: Space, ids: Iterable[PostId]) -> dict[PostId, Vector]:
    """The vectors of ``ids`` that ``space`` has. Raises Outage."""
    documents = await store.find(space.collection, ids, {"vector": 1})
    stored = (_stored(document, space.dimensions) for document in documents.values())
    return {entry.id: entry.vector for entry in stored if entry is not None}


async def read_stored(store: Store, space: Space, ids: Iterable[PostId]) -> dict[PostId, StoredVector]:
    """The vectors of ``ids`` that ``space`` has, with the time of their writing. Raises Outage."""
    documents = await store.find(space.collection, ids, {"vector": 1, "updatedAt": 1})
    stored = (_stored(document, space.dimensions) for document in documents.values())
    return {entry.id: entry for entry in stored if entry is not None}


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


async def sample_vectors(store: Store, space: Space, size: int) -> AsyncGenerator[list[Vector], None]:
    """``size`` of the vectors by chance, or a few less, in lists: documents without a sound vector are left out. Raises
    Outage, also where the server needs too long for it."""
    async with aclosing(store.sample(space.collection, size, {"vector": 1})) as batches:
        async for batch in batches:
            stored = (_stored(document, space.dimensions) for document in batch)
            yield [entry.vector for entry in stored if entry is not None]


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


async def _write_sound(
    store: Store, collection: str, writes: Sequence[Write], errors: list[MessageError | None]
) -> int:
    """Write those without an error so far, note their errors in ``errors``; answer how many found no document."""
    sound = [position for position, error in enumerate(errors) if error is None]
    report = await store.write(collection, [writes[position] for position in sound])
    for position, error in zip(sound, report.errors, strict=True):
        errors[position] = error
    return report.missing


def _vector_update(write: VectorWrite, where: Mapping[str, Any] | None = None) -> Write:
    fields = {"vector": Binary(_HEADER + write.vector, VECTOR_SUBTYPE), "contentHash": write.content_hash}
    update = {"$set": fields, "$currentDate": {"updatedAt": True}}
    return Write(write.id, update, upsert=where is None or where == NO_VECTOR, where=where or {})


def _unmoved(seen: ContentState | None) -> Mapping[str, Any]:
    # With the time: the hash alone would not show that the content went to another and back since.
    return {"contentHash": seen.content_hash, "updatedAt": seen.updated_at} if seen else NO_VECTOR


def _post_update(
    write: VectorWrite, error: MessageError | None, *, upsert: bool = False, where: Mapping[str, Any] | None = None
) -> Write:
    numbers = [] if error else as_numbers(write.vector).tolist()
    return Write(write.id, {"$set": {"embedding": numbers}}, upsert=upsert, where=where or {})


def _text_of(post: Document) -> dict[str, Any]:
    return {field: post.get(field) for field in ("content", "title")}


def _vector_error(space: Space, write: VectorWrite) -> Reject | None:
    if len(write.vector) != space.dimensions * FLOAT32_BYTES:
        got = len(write.vector) / FLOAT32_BYTES
        return Reject("bad_vector", f"the vector has {got:g} numbers: expected {space.dimensions} for {space.name}")
    if not math.isfinite(sum(as_numbers(write.vector))):
        return Reject("bad_vector", "the vector holds NaN or an infinity: expected finite numbers")
    return None


def as_numbers(vector: Vector) -> array[float]:
    """What ``posts.embedding`` is made of."""
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
