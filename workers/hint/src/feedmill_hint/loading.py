"""Parts of a mirror's start: reading ahead, progress, snapshots, and how much memory there is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from feedmill.errors import Outage
from feedmill.lane import run_blocking
from feedmill.spaces import Space, sample_vectors
from feedmill.store import Store
from feedmill_hint.index import IndexFull, IndexLimits, VectorIndex
from feedmill_hint.qdrant import QdrantIndex, open_qdrant
from feedmill_hint.settings import FollowSettings
from feedmill_hint.snapshots import Position, SnapshotUnusable, restore, save
from feedmill_hint.vectors import Index

PROGRESS_SECONDS = 5.0
READ_AHEAD = 4
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
UNLIMITED_BYTES = 1 << 60
"""What cgroup v1 says where there is no limit is a little below 2**63."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


def memory_limit(settings: FollowSettings) -> int:
    """Bytes that the index may take; 0: no limit. A quarter of the container's memory is left for the rest."""
    if settings.index_max_bytes:
        return settings.index_max_bytes
    for file in CGROUP_LIMITS:
        try:
            limit = int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):  # not there, or "max"
            continue
        return limit * 3 // 4 if limit < UNLIMITED_BYTES else 0
    return 0


def check_engine(settings: FollowSettings) -> None:
    """Raises SettingsError for an engine that can't be used: at the start, not once there is a space."""
    if settings.index_engine == "qdrant":
        open_qdrant(settings.qdrant_url, settings.qdrant_api_key.get_secret_value()).close()


def make_index(space: Space, settings: FollowSettings, taken: Callable[[], int] = lambda: 0) -> Index:
    """The index that the settings ask for, empty; ``taken``: memory that another one has. Raises SettingsError."""
    if settings.index_engine == "qdrant":
        client = open_qdrant(settings.qdrant_url, settings.qdrant_api_key.get_secret_value())
        return QdrantIndex(client, space.name, space.dimensions)
    return VectorIndex(space.dimensions, IndexLimits(settings.index_exact_below, memory_limit(settings)), taken)


async def learn_lists(store: Store, space: Space, index: Index) -> None:
    """Give an empty index its lists, from vectors of the whole space, before it is filled.

    Where the server can't pick them in time, the index learns from what it reads first.
    """
    size = index.sample_size() if isinstance(index, VectorIndex) else 0
    if not isinstance(index, VectorIndex) or not size:
        return
    began = time.monotonic()
    sample, found = np.empty((size, space.dimensions), np.float32), 0
    try:
        async with aclosing(sample_vectors(store, space, size)) as batches:
            async for batch in batches:
                rows = np.frombuffer(b"".join(batch), "<f4").reshape(-1, space.dimensions)[: size - found]
                sample[found : found + len(rows)] = rows
                found += len(rows)
    except Outage as error:
        _log.warning("no sample to learn the index's lists from: space=%s error=%s", space.name, error)
        return
    await asyncio.to_thread(index.begin, sample[:found])
    seconds = time.monotonic() - began
    _log.info("the index's lists are learnt: space=%s sample=%d seconds=%.1f", space.name, found, seconds)


@asynccontextmanager
async def ahead(batches: AsyncGenerator[T, None]) -> AsyncIterator[AsyncIterator[T]]:
    """``batches``, read by a task of its own while earlier ones are worked on, :data:`READ_AHEAD` at most."""
    queue: asyncio.Queue[T | Exception | None] = asyncio.Queue(READ_AHEAD)

    async def read() -> None:
        try:
            async for batch in batches:
                await queue.put(batch)
        except Exception as error:  # the reader's, wherever it comes from
            await queue.put(error)
        else:
            await queue.put(None)

    async def arrived() -> AsyncIterator[T]:
        while (entry := await queue.get()) is not None:
            if isinstance(entry, Exception):
                raise entry
            yield entry

    reading = asyncio.create_task(read(), name="mirror reading ahead")
    try:
        yield arrived()
    finally:
        reading.cancel()
        await asyncio.wait([reading])


class Progress:
    """A line now and then while an index is loaded."""

    def __init__(self, space: str, expected: int) -> None:
        self._space = space
        self._expected = expected
        self._began = time.monotonic()
        self._due = self._began + PROGRESS_SECONDS

    def tick(self, vectors: int) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + PROGRESS_SECONDS
        left = (now - self._began) * max(0, self._expected - vectors) / max(1, vectors)
        _log.info(
            "loading the index: space=%s vectors=%d expected=%d seconds_left=%.0f",
            self._space,
            vectors,
            self._expected,
            left,
        )


class SnapshotKeeper:
    """Reads and writes one index's snapshots, where a folder for them is set."""

    def __init__(self, index: Index, space: Space, settings: FollowSettings) -> None:
        self.has_changes = False
        self._index = index if isinstance(index, VectorIndex) else None  # a server keeps its own
        self._space = space
        self._folder = Path(settings.index_snapshot_dir) if settings.index_snapshot_dir else None
        self._every_seconds = settings.index_snapshot_seconds
        self._due = 0.0
        self._position: Position | None = None
        self._saving: asyncio.Future[int] | None = None

    async def restore(self) -> Position | None:
        """Fill the index from the snapshot and answer where it stands; None: there is none that can be used."""
        if self._folder is None or self._index is None:
            return None
        began = time.monotonic()
        try:
            restored = await asyncio.to_thread(restore, self._folder, self._space)
            await asyncio.to_thread(self._index.replace_all, restored.part, restored.made_for)
        except (SnapshotUnusable, IndexFull) as error:
            _log.warning("no snapshot of the index is used: space=%s %s", self._space.name, error)
            return None
        self._due = time.monotonic() + self._every_seconds
        vectors, seconds = len(self._index), time.monotonic() - began
        _log.info("index read from a snapshot: space=%s vectors=%d seconds=%.1f", self._space.name, vectors, seconds)
        return restored.position

    async def write(self, position: Position) -> None:
        """Write one if it is time and something changed. The index must hold all changes up to ``position``."""
        self._position = position
        if self.has_changes and time.monotonic() >= self._due and self._can_write():
            self._due = time.monotonic() + self._every_seconds
            await self._write(position)

    async def write_last(self, within_seconds: float) -> None:
        """Write one at the end, if anything changed since the last, unless it takes too long: then that one stays."""
        if self._position is None or not self.has_changes or not self._can_write() or within_seconds <= 0:
            return
        try:
            async with asyncio.timeout(within_seconds):
                if self._saving:  # by a mirror that was stopped meanwhile
                    await asyncio.wait([self._saving])
                await self._write(self._position)
        except TimeoutError:
            _log.warning("no time for a last snapshot: space=%s seconds=%.1f", self._space.name, within_seconds)

    def _can_write(self) -> bool:
        index = self._index
        return self._folder is not None and index is not None and index.kind == "ivf" and not index.is_moving

    async def _write(self, position: Position) -> None:
        began = time.monotonic()
        try:
            # Not a thread that the end of the process waits for.
            self._saving = asyncio.ensure_future(run_blocking(lambda: self._save(position), "snapshot"))
            size = await asyncio.shield(self._saving)
        except OSError as error:
            _log.warning("the snapshot can't be written: space=%s %s", self._space.name, error)
            return
        self.has_changes = False
        seconds = time.monotonic() - began
        _log.info("snapshot written: space=%s bytes=%d seconds=%.1f", self._space.name, size, seconds)

    def _save(self, position: Position) -> int:
        if self._folder is None or self._index is None:
            return 0
        with self._index.unchanging() as part:
            return save(self._folder, self._space, part, self._index.made_for, position) if part else 0
