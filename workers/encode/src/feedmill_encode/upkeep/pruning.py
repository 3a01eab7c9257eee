"""Vectors of deleted posts are removed: from every space, at leisure, beside live traffic.

Deleted means that the post is gone. One that a site only marks as deleted keeps its vector, as it may come back; hint
leaves it out of answers meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from feedmill.contract import ENCODE, SPACES_COLLECTION
from feedmill.errors import ModelError
from feedmill.spaces import Space, list_spaces, remove_orphans
from feedmill.store import Store, Write
from feedmill_encode.backfill.filling import Pace
from feedmill_encode.backfill.ledger import FIRST_OBJECT_ID, FIRST_STRING

PAGE_VECTORS = 500
REPORT_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass
class Pruned:
    """What was done with one space."""

    looked: int = 0
    removed: int = 0
    is_done: bool = False


async def prune(store: Store, space: Space, grace_seconds: float, pace: Pace, stop: asyncio.Event) -> Pruned:
    """Remove the vectors of ``space`` whose post is gone and that are older than ``grace_seconds``. Raises Outage."""
    found = Pruned()
    report_at = time.monotonic() + REPORT_SECONDS
    written_before = datetime.now(UTC) - timedelta(seconds=grace_seconds)
    for first in (FIRST_STRING, FIRST_OBJECT_ID):
        after = first
        while ids := await store.page(space.collection, after, None, pace.portion(PAGE_VECTORS)):
            found.removed += await remove_orphans(store, space, ids, written_before)
            found.looked += len(ids)
            if time.monotonic() >= report_at:
                report_at = time.monotonic() + REPORT_SECONDS
                _log.info("pruning: space=%s looked=%d removed=%d", space.name, found.looked, found.removed)
            await pace.after(len(ids), stop)
            if stop.is_set():
                return found
            after = ids[-1]
    found.is_done = True
    fields = {"prune.looked": found.looked, "prune.removed": found.removed}
    await store.write(SPACES_COLLECTION, [Write(space.name, {"$set": fields})])
    _log.info("pruned: space=%s looked=%d removed=%d", space.name, found.looked, found.removed)
    return found


async def check_posts(store: Store, space: Space) -> None:
    """Raises ModelError where far more vectors than posts would be a database that was mistaken for another."""
    vectors, posts = await store.count(space.collection), await store.count(ENCODE.collection)
    if vectors > 2 * posts:
        raise ModelError(
            f"space {space.name} holds {vectors} vectors, and there are {posts} posts: expected at least half as many "
            "posts; is it the right DATABASE_NAME? (--force)"
        )


async def prune_when_due(
    store: Store, every_seconds: float, grace_seconds: float, pace: Pace, stop: asyncio.Event
) -> None:
    """Prune each space whose turn it is: once in ``every_seconds``, by one of all processes. Raises Outage."""
    for info in await list_spaces(store):
        if stop.is_set() or not await _take_turn(store, info.space, every_seconds):
            continue
        try:
            await check_posts(store, info.space)
        except ModelError as error:
            _log.warning("nothing is pruned: %s", error)
        else:
            await prune(store, info.space, grace_seconds, pace, stop)


async def _take_turn(store: Store, space: Space, every_seconds: float) -> bool:
    document = (await store.find(SPACES_COLLECTION, [space.name])).get(space.name, {})
    last = document.get("prune", {}).get("at")
    if isinstance(last, datetime) and _age_seconds(last) < every_seconds:
        return False
    update = {"$currentDate": {"prune.at": True}}
    return (await store.write(SPACES_COLLECTION, [Write(space.name, update, where={"prune.at": last})])).missing == 0


def _age_seconds(moment: datetime) -> float:
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (datetime.now(UTC) - aware).total_seconds()
