"""After a switch of the active space: ``posts.embedding`` of all older posts follows it.

The work is shared and resumed as a backfill's is (:mod:`feedmill_encode.backfill.ledger`), once for each switch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from feedmill.ids import PostId
from feedmill.spaces import Space, active_pointer, active_space, copy_embeddings
from feedmill.store import Store
from feedmill_encode.backfill.filling import RANGE_POSTS, READ_POSTS, Keeper, Pace
from feedmill_encode.backfill.ledger import PAGE_IDS, Ledger, Progress

FIELD = "copy"
STALE_SECONDS = 30.0
BEATS_PER_STALE = 5
LOOK_SECONDS = 1.0
REPORT_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass
class Copied:
    """How a copy ended."""

    space: str | None
    """The active space; None: there is none."""
    is_done: bool = True
    looked: int = 0
    """Posts that all processes together looked at."""
    changed: int = 0
    """Posts that this process gave another embedding."""


class Copier:
    """One process's part in bringing ``posts.embedding`` along.

    Run the same one again and again: only who has watched another's lease for a while can tell that its owner is gone.
    """

    def __init__(self, store: Store, owner: str, pace: Pace, stop: asyncio.Event) -> None:
        self._store = store
        self._owner = owner
        self._pace = pace
        self._stop = stop
        self._changed = 0
        self._ledger: Ledger | None = None
        self._occasion: tuple[str, datetime] | None = None
        self._report_at = time.monotonic() + REPORT_SECONDS

    async def run(self, *, wait: bool) -> Copied:
        """Copy until everything is done, ``stop`` is set or another space is made active.

        ``wait``: also for what other processes have in hand. Raises Outage; nothing is lost by it.
        """
        pointer, space = await active_pointer(self._store), await active_space(self._store)
        if pointer is None or space is None or pointer.space != space.name:
            return Copied(None)
        if not pointer.is_switch or pointer.changed_at is None:
            return Copied(space.name)  # the first space: no other one's vectors can be in the posts
        ledger = self._ledger_for(space, pointer.changed_at)
        before = await ledger.progress()
        if before.is_done and await ledger.occasion() == pointer.changed_at:
            return Copied(space.name, looked=before.done)
        await self._let_settle(pointer.changed_at)
        await ledger.begin()
        has_worked = False
        while not self._stop.is_set() and await active_pointer(self._store) == pointer:
            if has_worked and time.monotonic() >= self._report_at:
                self._report(space, await ledger.progress())
            if await self._step(ledger, space):
                has_worked = True
            elif not wait or (await ledger.progress()).is_done:
                break
            else:
                await self._pause(LOOK_SECONDS)
        progress = await ledger.progress()
        if has_worked:
            self._report(space, progress)
        return Copied(space.name, progress.is_done, progress.done, self._changed)

    def _ledger_for(self, space: Space, changed_at: datetime) -> Ledger:
        occasion = (space.name, changed_at)
        if self._ledger is None or self._occasion != occasion:
            self._ledger = Ledger(self._store, space, self._owner, STALE_SECONDS, FIELD, changed_at)
            self._occasion = occasion
            self._changed = 0
        return self._ledger

    def _report(self, space: Space, progress: Progress) -> None:
        self._report_at = time.monotonic() + REPORT_SECONDS
        _log.info("posts.embedding: space=%s done=%d total=%d", space.name, progress.done, progress.total)

    async def _step(self, ledger: Ledger, space: Space) -> bool:
        """Work on one range of posts. Answers whether there was one."""
        lease = await ledger.claim(RANGE_POSTS)
        if lease is None:
            return False
        async with Keeper(ledger, lease, STALE_SECONDS / BEATS_PER_STALE) as keeper:
            ids = await ledger.ids(lease, PAGE_IDS)
            done = await self._copy(space, ids)
        if keeper.lease is not None:
            await (ledger.complete(keeper.lease, len(ids)) if done else ledger.release(keeper.lease))
        return True

    async def _copy(self, space: Space, ids: list[PostId]) -> bool:
        size = self._pace.portion(READ_POSTS)
        for start in range(0, len(ids), size):
            if self._stop.is_set():
                return False
            part = ids[start : start + size]
            self._changed += await copy_embeddings(self._store, space, part)
            await self._pace.after(len(part), self._stop)
        return True

    async def _let_settle(self, changed_at: datetime) -> None:
        """Until whoever read the pointer before the switch has written its ``posts.embedding``, or given up.

        By two machines' clocks; however far they are apart, no longer than a call of the store may take.
        """
        limit = self._store.settings.operation_timeout_seconds
        moment = changed_at.replace(tzinfo=UTC) if changed_at.tzinfo is None else changed_at
        left = limit - (datetime.now(UTC) - moment).total_seconds()
        await self._pause(min(limit, max(0.0, left)))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
