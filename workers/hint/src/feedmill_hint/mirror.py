"""One space's vectors in memory, kept like those in the database: by change stream, or by polling."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from bson import ObjectId

from feedmill.backoff import Backoff
from feedmill.errors import Outage
from feedmill.ids import PostId
from feedmill.spaces import Space, Vector, changed_since, read_stored, stream_ids, stream_vectors, watch_vectors
from feedmill.store import HistoryLost, Store, StreamUnsupported
from feedmill_hint.growth import Growth
from feedmill_hint.index import IndexFull, usable
from feedmill_hint.loading import Progress, SnapshotKeeper, ahead, learn_lists, make_index
from feedmill_hint.settings import FollowSettings
from feedmill_hint.snapshots import Position

REFRESH_IDS = 1000
"""Vectors fetched at once: bounds memory when much has changed."""
CHANGES_AT_ONCE = 1000
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

    Begins with a snapshot where there is a sound one, else with all vectors. Streaming: the stream is opened before the
    first load, so that no change falls between them; changes say only which ids to read again, so they may come twice.
    Polling: writes are found by ``updatedAt``, the server's clock, looking back over an overlap for writes that became
    visible late; removed vectors are found by comparing ids now and then. The same is done where a stream can't go on
    from where it was.
    """

    def __init__(
        self, store: Store, space: Space, settings: FollowSettings, taken: Callable[[], int] = lambda: 0
    ) -> None:
        """``taken``: memory of the index that answers while this one is made."""
        self.space = space
        self.index = make_index(space, settings, taken)
        self.growth = Growth(self.index, settings)
        self.loaded = asyncio.Event()
        self.problem: str | None = None
        """Why the index can't be what it should be; None: it can."""
        self.expected = 0
        """How many vectors a load is to bring."""
        self.lag_seconds = 0.0
        """How long after its write the last change was found here, by both machines' clocks."""
        self._store = store
        self._settings = settings
        self._polls = settings.follow == "poll"
        self._fresh_at = time.monotonic()
        self._backoff = Backoff(FIRST_RETRY_SECONDS, settings.index_backoff_max_seconds)
        self._token: Mapping[str, Any] | None = None
        self._window: _Window | None = None
        self._newest: datetime | None = None
        self._tried_sample = False
        self._snapshots = SnapshotKeeper(self.index, space, settings)

    @property
    def mode(self) -> str:
        return "poll" if self._polls else "stream"

    def age_seconds(self) -> float:
        """Time since the index was last known to be like the database (since the start, before that)."""
        return time.monotonic() - self._fresh_at

    async def run(self) -> None:
        """Load, then follow, until cancelled. Failures are logged and healed by trying again, forever."""
        growing = asyncio.create_task(self._grow(), name=f"mirror growth {self.space.name}")
        try:
            await self._restore()
            while True:
                await self._try_to_follow()
                await asyncio.sleep(self._backoff.next())
        finally:
            growing.cancel()
            await asyncio.wait([growing])

    async def keep(self, within_seconds: float) -> None:
        """After :meth:`run` was cancelled: write what changed since the last snapshot, where that takes no longer."""
        await self._snapshots.write_last(within_seconds)

    async def _grow(self) -> None:
        await self.loaded.wait()
        await self.growth.run()

    async def _try_to_follow(self) -> None:
        try:
            await (self._follow_by_polls() if self._polls else self._follow_by_stream())
        except StreamUnsupported as error:
            self._polls = self._settings.follow == "auto"
            _log.warning("no change stream: space=%s error=%s polling=%s", self.space.name, error, self._polls)
        except HistoryLost as error:
            self._token = None
            _log.warning("changes were lost, comparing all: space=%s error=%s", self.space.name, error)
        except IndexFull as error:
            self.problem = str(error)
            _log.error("the index is full: space=%s %s", self.space.name, error)
        except Outage as error:
            _log.warning("the index can't follow: space=%s error=%s", self.space.name, error)
        except Exception:  # a bug must not leave a stale index behind that nobody repairs
            _log.exception("the index can't follow: space=%s", self.space.name)

    async def _restore(self) -> None:
        position = await self._snapshots.restore()
        if position is not None:
            self._newest, self._token = position.newest, position.token
            # Whoever polls looks back to where the snapshot was, then finds what was removed since.
            self._window = _Window(position.newest, self._settings.index_overlap_seconds)

    async def _follow_by_stream(self) -> None:
        async with watch_vectors(self._store, self.space, self._token) as feed:
            if self._token is None:
                await self._fill()
                self._token = feed.resume_token
            while True:
                changes = await feed.changes(CHANGES_AT_ONCE)
                await self._refresh(change.id for change in changes)
                self._snapshots.has_changes |= bool(changes)
                self._token = feed.resume_token
                if len(changes) < CHANGES_AT_ONCE:  # else there are more
                    self._caught_up(changed=bool(changes))
                await self._snapshots.write(Position(self._newest, self._token))

    async def _follow_by_polls(self) -> None:
        started = time.monotonic()
        if self._window is None:
            await self._fill()
        if not self.loaded.is_set() and self._window is not None:  # from a snapshot
            self._window = await self._poll(self._window)
            await self._reconcile()
            self._caught_up()
        # Writes during the load may have been passed by: the first poll reaches back over it.
        reach = self._settings.index_overlap_seconds + time.monotonic() - started
        self._window = self._window or _Window(self._newest, reach)
        reconcile_at = time.monotonic() + self._settings.index_reconcile_seconds
        while True:
            await asyncio.sleep(self._settings.index_poll_seconds)
            known = self._window.known
            self._window = await self._poll(self._window)
            if time.monotonic() >= reconcile_at:
                await self._reconcile()
                reconcile_at = time.monotonic() + self._settings.index_reconcile_seconds
            self._caught_up(changed=self._window.known != known)
            await self._snapshots.write(Position(self._newest, None))

    async def _poll(self, window: _Window) -> _Window:
        changed = await changed_since(self._store, self.space, window.since())
        await self._refresh(post_id for post_id, moment in changed.items() if window.known.get(post_id) != moment)
        newest = max(changed.values(), default=window.newest)
        return _Window(newest, self._settings.index_overlap_seconds, changed)

    def _caught_up(self, *, changed: bool = False) -> None:
        self._fresh_at = time.monotonic()
        self._backoff.reset()
        self.problem = None
        self._snapshots.has_changes |= changed
        if not self.loaded.is_set():
            self.loaded.set()
            _log.info("index ready: space=%s vectors=%d follow=%s", self.space.name, len(self.index), self.mode)

    async def _fill(self) -> None:
        """Make the index like the database: by what changed since, where it is known since when; else from nothing."""
        if self._newest is None:
            await self._load()
        else:
            await self._poll(_Window(self._newest, self._settings.index_overlap_seconds))
            await self._reconcile()
        await self.growth.grow()
        self._caught_up(changed=True)

    async def _load(self) -> None:
        """Read all vectors, the next ones while the last ones are put in; forget those that are gone."""
        self.expected = await self._store.count(self.space.collection)
        self.index.expect(self.expected)
        if not self._tried_sample:  # once: a server that was too slow for it may still be busy with it
            self._tried_sample = True
            await learn_lists(self._store, self.space, self.index)
        before = await asyncio.to_thread(self.index.ids)
        newest: datetime | None = None
        progress = Progress(self.space.name, self.expected)
        async with aclosing(stream_vectors(self._store, self.space)) as batches, ahead(batches) as arrived:
            async for batch in arrived:
                await asyncio.to_thread(self._apply, {entry.id: entry.vector for entry in batch}, ())
                before.difference_update(entry.id for entry in batch)
                newest = max((entry.updated_at for entry in batch if entry.updated_at), default=newest)
                await self.growth.grow(is_complete=False)
                progress.tick(len(self.index))
        await asyncio.to_thread(self.index.delete, before)
        self._newest = newest
        self.expected = 0
        self.index.expect(len(self.index))

    async def _refresh(self, ids: Iterable[object]) -> None:
        """Make ``ids`` in the index as they are in the database now."""
        wanted = [post_id for post_id in dict.fromkeys(ids) if isinstance(post_id, (ObjectId, str))]
        for start in range(0, len(wanted), REFRESH_IDS):
            part = wanted[start : start + REFRESH_IDS]
            found = await read_stored(self._store, self.space, part)
            vectors = {post_id: entry.vector for post_id, entry in found.items()}
            await asyncio.to_thread(self._apply, vectors, [post_id for post_id in part if post_id not in found])
            self._note_times([entry.updated_at for entry in found.values() if entry.updated_at])

    def _note_times(self, times: Sequence[datetime]) -> None:
        if times:
            newest = max(times)
            self._newest = max(newest, self._newest or newest)
            self.lag_seconds = max(0.0, datetime.now(UTC).timestamp() - newest.replace(tzinfo=UTC).timestamp())

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
