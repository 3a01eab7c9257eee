"""One space's vectors in memory, kept like those in the database: by change stream, or by polling."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from bson import ObjectId

from feedmill.backoff import Backoff
from feedmill.errors import Outage
from feedmill.ids import PostId
from feedmill.spaces import Space, Vector, changed_since, read_vectors, stream_ids, stream_vectors, watch_vectors
from feedmill.store import HistoryLost, Store, StreamUnsupported
from feedmill_hint.index import VectorIndex, usable
from feedmill_hint.settings import FollowSettings

REFRESH_IDS = 1000
"""Vectors fetched at once: bounds memory when much has changed."""
PROGRESS_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Window:
    """How far polling has come."""

    newest: datetime | None
    """The latest ``updatedAt`` that was seen."""
    reach_seconds: float
    """How far before that the next poll begins."""
    known: Mapping[PostId, datetime] = field(default_factory=dict)
    """What the last poll saw: an entry with the same time needs no second read."""

    def since(self) -> datetime | None:
        return self.newest - timedelta(seconds=self.reach_seconds) if self.newest else None


class SpaceMirror:
    """The index of one space and what keeps it current.

    Streaming: the stream is opened before the first load, so that no change falls between them; changes say only which
    ids to read again, so they may come twice. Polling: writes are found by ``updatedAt``, the server's clock, looking
    back over an overlap for writes that became visible late; removed vectors are found by comparing ids now and then.
    """

    def __init__(self, store: Store, space: Space, settings: FollowSettings) -> None:
        self.space = space
        self.index = VectorIndex(space.dimensions)
        self.loaded = asyncio.Event()
        self._store = store
        self._settings = settings
        self._polls = settings.follow == "poll"
        self._fresh_at = time.monotonic()
        self._backoff = Backoff(FIRST_RETRY_SECONDS, settings.index_backoff_max_seconds)
        self._token: Mapping[str, Any] | None = None
        self._window: _Window | None = None

    @property
    def mode(self) -> str:
        return "poll" if self._polls else "stream"

    def age_seconds(self) -> float:
        """Time since the index was last known to be like the database (since the start, before that)."""
        return time.monotonic() - self._fresh_at

    async def run(self) -> None:
        """Load, then follow, until cancelled. Failures are logged and healed by trying again, forever."""
        while True:
            try:
                await (self._follow_by_polls() if self._polls else self._follow_by_stream())
            except StreamUnsupported as error:
                self._polls = self._settings.follow == "auto"
                _log.warning("no change stream: space=%s error=%s polling=%s", self.space.name, error, self._polls)
            except HistoryLost as error:
                self._token = None
                _log.warning("changes were lost, loading again: space=%s error=%s", self.space.name, error)
            except Outage as error:
                _log.warning("the index can't follow: space=%s error=%s", self.space.name, error)
            except Exception:  # a bug must not leave a stale index behind that nobody repairs
                _log.exception("the index can't follow: space=%s", self.space.name)
            await asyncio.sleep(self._backoff.next())

    async def _follow_by_stream(self) -> None:
        async with watch_vectors(self._store, self.space, self._token) as feed:
            if self._token is None:
                await self._load()
                self._token = feed.resume_token
            while True:
                changes = await feed.changes()
                await self._refresh(change.id for change in changes)
                self._token = feed.resume_token
                self._caught_up()

    async def _follow_by_polls(self) -> None:
        if self._window is None:
            started = time.monotonic()
            newest = await self._load()
            # Writes during the load may have been passed by: the first poll reaches back over it.
            self._window = _Window(newest, self._settings.index_overlap_seconds + time.monotonic() - started)
        reconcile_at = time.monotonic() + self._settings.index_reconcile_seconds
        while True:
            await asyncio.sleep(self._settings.index_poll_seconds)
            self._window = await self._poll(self._window)
            if time.monotonic() >= reconcile_at:
                await self._reconcile()
                reconcile_at = time.monotonic() + self._settings.index_reconcile_seconds
            self._caught_up()

    async def _poll(self, window: _Window) -> _Window:
        changed = await changed_since(self._store, self.space, window.since())
        await self._refresh(post_id for post_id, moment in changed.items() if window.known.get(post_id) != moment)
        newest = max(changed.values(), default=window.newest)
        return _Window(newest, self._settings.index_overlap_seconds, changed)

    def _caught_up(self) -> None:
        self._fresh_at = time.monotonic()
        self._backoff.reset()

    async def _load(self) -> datetime | None:
        """Read all vectors; forget those that are gone. Answers the newest ``updatedAt`` among them."""
        before = await asyncio.to_thread(self.index.ids)
        newest: datetime | None = None
        report_at = time.monotonic() + PROGRESS_SECONDS
        async with aclosing(stream_vectors(self._store, self.space)) as batches:
            async for batch in batches:
                await asyncio.to_thread(self._apply, {entry.id: entry.vector for entry in batch}, ())
                before.difference_update(entry.id for entry in batch)
                newest = max((entry.updated_at for entry in batch if entry.updated_at), default=newest)
                if time.monotonic() >= report_at:
                    _log.info("loading the index: space=%s vectors=%d", self.space.name, len(self.index))
                    report_at = time.monotonic() + PROGRESS_SECONDS
        await asyncio.to_thread(self.index.delete, before)
        self._caught_up()
        self.loaded.set()
        _log.info("index loaded: space=%s vectors=%d follow=%s", self.space.name, len(self.index), self.mode)
        return newest

    async def _refresh(self, ids: Iterable[object]) -> None:
        """Make ``ids`` in the index as they are in the database now."""
        wanted = [post_id for post_id in dict.fromkeys(ids) if isinstance(post_id, (ObjectId, str))]
        for start in range(0, len(wanted), REFRESH_IDS):
            part = wanted[start : start + REFRESH_IDS]
            found = await read_vectors(self._store, self.space, part)
            await asyncio.to_thread(self._apply, found, [post_id for post_id in part if post_id not in found])

    async def _reconcile(self) -> None:
        """Find by comparing ids what polling by time can't see: removed vectors, and writes that came very late."""
        gone = await asyncio.to_thread(self.index.ids)
        unknown: list[PostId] = []
        async with aclosing(stream_ids(self._store, self.space)) as batches:
            async for batch in batches:
                unknown.extend(post_id for post_id in batch if post_id not in gone)
                gone.difference_update(batch)
        await asyncio.to_thread(self.index.delete, gone)
        await self._refresh(unknown)

    def _apply(self, vectors: Mapping[PostId, Vector], gone: Sequence[PostId]) -> None:
        """Put ``vectors`` into the index and take ``gone`` out. Runs in a thread: it may wait for a search."""
        ids = list(vectors)
        packed = np.frombuffer(b"".join(vectors.values()), "<f4")
        matrix = packed.astype(np.float32, copy=False).reshape(len(ids), self.space.dimensions)
        sound = usable(matrix)
        without_direction = [post_id for post_id, is_sound in zip(ids, sound, strict=True) if not is_sound]
        if without_direction:
            _log.warning("vectors without a direction were left out: count=%d", len(without_direction))
        self.index.upsert([post_id for post_id, is_sound in zip(ids, sound, strict=True) if is_sound], matrix[sound])
        self.index.delete([*gone, *without_direction])
