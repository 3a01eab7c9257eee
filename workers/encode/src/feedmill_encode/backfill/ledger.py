"""How far a backfill is, in the database: which posts are done, and which ranges of ids are in whose hands.

All of it is one field of the space's document in ``vector_spaces``, changed by conditional updates of that document
alone, so that any number of processes can share the work and none of them is needed for it::

    backfill: {state, done, total, updatedAt, after: <id>, leases: {<key>: {after, upto, posts, owner, beat}}}

Other work on all posts is shared in the same way, under another field and once for each occasion (``of``).

``after`` is the frontier: up to there every post is done or in a lease. Strings come before ObjectIds, as in BSON's
order. A lease is kept by counting up its ``beat``; one whose beat has stood still for a while, by the watcher's own
clock, belongs to a process that is gone, and is taken over. So no clocks are compared.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId

from feedmill.contract import ENCODE, SPACES_COLLECTION
from feedmill.errors import ModelError
from feedmill.ids import PostId
from feedmill.spaces import Space
from feedmill.store import Document, Store, Write

FIRST_STRING: PostId = ""
FIRST_OBJECT_ID: PostId = ObjectId(b"\x00" * 12)
PAGE_IDS = 10_000
"""Ids asked for at once: many ranges for one question."""

BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Lease:
    """A range of ids that this process works on: above ``after``, up to ``upto``."""

    key: str
    after: PostId
    upto: PostId
    beat: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the backfill of a space is, by all processes together."""

    is_done: bool
    done: int
    total: int


class Ledger:
    """One process's view of a space's backfill, or of the work under another ``field``. Every method raises Outage."""

    def __init__(
        self,
        store: Store,
        space: Space,
        owner: str,
        stale_seconds: float,
        field: str = BACKFILL,
        of: datetime | None = None,
    ) -> None:
        """``of``: the occasion. Done once, it is not begun again. None: :meth:`begin` always does."""
        self._store = store
        self._space = space
        self._owner = owner
        self._stale_seconds = stale_seconds
        self._field = field
        self._of = of
        self._stamp = {f"{field}.updatedAt": True}
        self._ahead: list[PostId] = []
        self._watched: dict[str, tuple[int, float]] = {}

    async def begin(self) -> None:
        """Join the backfill that is running, or begin a new one. Raises ModelError for a space that is unknown."""
        known = await self._entry()
        if known.get("of") == self._of and (known.get("state") == "running" or self._of is not None):
            return
        fresh = {"state": "running", "done": 0, "total": await self._posts(), "after": FIRST_STRING, "leases": {}}
        fields = {f"{self._field}.{key}": value for key, value in {**fresh, "of": self._of}.items()}
        update = {"$set": {**fields, **self._state_of_space("backfilling")}, "$currentDate": self._stamp}
        await self._update({f"{self._field}.{key}": known.get(key) for key in ("state", "of")}, update)

    async def progress(self) -> Progress:
        entry = await self._entry()
        return Progress(entry.get("state") == "done", entry.get("done", 0), entry.get("total", 0))

    async def occasion(self) -> datetime | None:
        """What was begun last, or done."""
        return (await self._entry()).get("of")

    async def claim(self, posts: int) -> Lease | None:
        """The next ``posts`` posts, or those of a process that is gone; None: all that is left is in good hands."""
        while True:
            entry = await self._entry()
            if entry.get("state") != "running":
                return None
            frontier, leases = entry["after"], entry["leases"]
            if abandoned := self._abandoned(leases):
                if lease := await self._take_over(abandoned, leases[abandoned]):
                    return lease
                continue
            ids = await self._next_ids(frontier, posts)
            if ids:
                if lease := await self._advance(frontier, ids):
                    return lease
            elif isinstance(frontier, str):
                after = f"{self._field}.after"
                await self._update({after: frontier}, {"$set": {after: FIRST_OBJECT_ID}})
            elif leases:
                return None
            else:
                await self._finish(frontier)

    async def ids(self, lease: Lease, limit: int) -> list[PostId]:
        """The posts of a lease; at most ``limit``, which is more than there can be unless posts were added."""
        return await self._store.page(ENCODE.collection, lease.after, lease.upto, limit)

    async def keep(self, lease: Lease) -> Lease | None:
        """Show that this process lives; None where another one has taken the lease over."""
        place = f"{self._place(lease.key)}.beat"
        if await self._update({place: lease.beat}, {"$set": {place: lease.beat + 1}}):
            return Lease(lease.key, lease.after, lease.upto, lease.beat + 1)
        return None

    async def complete(self, lease: Lease, posts: int) -> bool:
        """Note that ``posts`` more posts are done; False where the lease was taken over: then nothing is noted."""
        place = self._place(lease.key)
        update = {"$unset": {place: ""}, "$inc": {f"{self._field}.done": posts}, "$currentDate": self._stamp}
        return await self._update({f"{place}.beat": lease.beat}, update)

    async def release(self, lease: Lease) -> None:
        """Give a lease back unfinished: the next one to look takes it over at once."""
        place = self._place(lease.key)
        await self._update({f"{place}.beat": lease.beat}, {"$set": {f"{place}.owner": ""}})

    def _abandoned(self, leases: Mapping[str, Any]) -> str | None:
        now = time.monotonic()
        self._watched = {
            key: self._watched[key] if self._watched.get(key, (None,))[0] == lease["beat"] else (lease["beat"], now)
            for key, lease in leases.items()
        }
        for key, lease in leases.items():
            if lease["owner"] in ("", self._owner) or now - self._watched[key][1] > self._stale_seconds:
                return key
        return None

    async def _take_over(self, key: str, lease: Mapping[str, Any]) -> Lease | None:
        place, beat = self._place(key), lease["beat"] + 1
        update = {"$set": {f"{place}.owner": self._owner, f"{place}.beat": beat}}
        taken = await self._update({f"{place}.beat": lease["beat"]}, update)
        return Lease(key, lease["after"], lease["upto"], beat) if taken else None

    async def _next_ids(self, frontier: PostId, limit: int) -> list[PostId]:
        ahead = [post_id for post_id in self._ahead if type(post_id) is type(frontier) and post_id > frontier]
        if not ahead:
            ahead = await self._store.page(ENCODE.collection, frontier, None, PAGE_IDS)
        self._ahead = ahead
        return ahead[:limit]

    async def _advance(self, frontier: PostId, ids: Sequence[PostId]) -> Lease | None:
        key, upto = uuid.uuid4().hex[:12], ids[-1]
        lease = {"after": frontier, "upto": upto, "owner": self._owner, "beat": 0}
        state, after = f"{self._field}.state", f"{self._field}.after"
        update = {"$set": {after: upto, self._place(key): lease}}
        taken = await self._update({state: "running", after: frontier}, update)
        return Lease(key, frontier, upto, 0) if taken else None

    async def _finish(self, frontier: PostId) -> None:
        """Everything is done, unless a lease was taken since, which moves the frontier."""
        done = (await self._entry()).get("done", 0)
        unchanged: dict[str, Any] = {"state": "running", "after": frontier, "leases": {}}
        # Posts come and go meanwhile: what was done is the better figure of how many there are.
        fields = {f"{self._field}.state": "done", f"{self._field}.total": done, **self._state_of_space("ready")}
        await self._update(
            {f"{self._field}.{key}": value for key, value in unchanged.items()},
            {"$set": fields, "$currentDate": self._stamp},
        )

    def _place(self, key: str) -> str:
        return f"{self._field}.leases.{key}"

    def _state_of_space(self, state: str) -> dict[str, str]:
        return {"state": state} if self._field == BACKFILL else {}

    async def _entry(self) -> dict[str, Any]:
        return dict((await self._document()).get(self._field, {}))

    async def _posts(self) -> int:
        return await self._store.count(ENCODE.collection)

    async def _document(self) -> Document:
        found = await self._store.find(SPACES_COLLECTION, [self._space.name])
        if self._space.name not in found:
            raise ModelError(f"space {self._space.name} is not registered any more: was it dropped?")
        return found[self._space.name]

    async def _update(self, where: Mapping[str, Any], update: Mapping[str, Any]) -> bool:
        report = await self._store.write(SPACES_COLLECTION, [Write(self._space.name, update, where=where)])
        if report.errors[0] is not None:
            raise ModelError(f"{SPACES_COLLECTION} can't be written: {report.errors[0]}")
        return report.missing == 0
