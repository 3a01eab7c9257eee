"""What follows from posts for their vectors, and from vectors for their posts, long after either was written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from feedmill.contract import ENCODE
from feedmill.ids import PostId
from feedmill.spaces.registry import active_name
from feedmill.spaces.space import Space
from feedmill.spaces.vectors import NO_VECTOR, as_numbers, content_states, read_stored
from feedmill.store import Store, Write

_LOOKS = 5
"""A post that is encoded anew so often while its embedding is copied has somebody who sees to it."""


async def copy_embeddings(store: Store, space: Space, ids: Iterable[PostId]) -> int:
    """Set ``posts.embedding`` of ``ids`` to the vectors of ``space`` while it is the active one; answer how many did.

    Beside live traffic, which writes the vector first and ``posts.embedding`` then: whoever wrote a vector after it was
    read here is seen afterwards, and that post is copied again. A post without a vector keeps what it has.

    Raises:
        Outage: the database is away.
    """
    left, changed = list(ids), set[PostId]()
    for _ in range(_LOOKS):
        if not left or await active_name(store) != space.name:
            break
        stored = await read_stored(store, space, left)
        posts = await store.find(ENCODE.collection, stored, {"embedding": 1})
        numbers = {post_id: as_numbers(stored[post_id].vector).tolist() for post_id in posts}
        other = [post_id for post_id, post in posts.items() if post.get("embedding") != numbers[post_id]]
        await store.write(ENCODE.collection, [Write(i, {"$set": {"embedding": numbers[i]}}) for i in other])
        changed.update(other)
        now = await content_states(store, space, other)
        left = [i for i in other if i in now and now[i].updated_at != stored[i].updated_at]
    return len(changed)


async def remove_orphans(store: Store, space: Space, ids: Sequence[PostId], written_before: datetime) -> int:
    """Remove those vectors of ``ids`` whose post does not exist; answer how many.

    One that was written since ``written_before`` stays: a producer may send a post to be encoded before it stores it.
    The condition is part of the removal, so that a vector that is written meanwhile stays as well; and one whose post
    appears meanwhile is put back.

    Raises:
        Outage: the database is away. Some may have been removed.
    """
    there = await store.find(ENCODE.collection, ids, {"_id": 1})
    condition = {"updatedAt": {"$lt": written_before}}
    gone = [post_id for post_id in ids if post_id not in there]
    vectors = await store.find(space.collection, gone) if gone else {}
    old = {post_id: entry for post_id, entry in vectors.items() if _is_before(entry.get("updatedAt"), written_before)}
    if not old:
        return 0
    removed = await store.delete(space.collection, old, condition)
    back = await store.find(ENCODE.collection, old, {"_id": 1})
    fields = {i: {key: value for key, value in old[i].items() if key not in ("_id", "updatedAt")} for i in back}
    again = [
        Write(i, {"$set": fields[i], "$currentDate": {"updatedAt": True}}, upsert=True, where=NO_VECTOR) for i in back
    ]
    await store.write(space.collection, again)
    return removed - len(again)


def _is_before(moment: object, limit: datetime) -> bool:
    if not isinstance(moment, datetime):
        return False
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment) < limit
