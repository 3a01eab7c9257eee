"""Parts of a mirror's start: reading ahead, progress, snapshots, and how much memory there is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from feedmill.spaces import Space
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


def make_index(space: Space, settings: FollowSettings) -> Index:
    """The index that the settings ask for, empty. Raises SettingsError."""
    if settings.index_engine == "qdrant":
        client = open_qdrant(settings.qdrant_url, settings.qdrant_api_key.get_secret_value())
        return QdrantIndex(client, space.name, space.dimensions)
    return VectorIndex(space.dimensions, IndexLimits(settings.index_exact_below, memory_limit(settings)))


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
        """Write one if it is time and something changed. The caller is the index's only writer, and waits for it."""
        part = self._index.inverted_file if self._index else None
        is_due = self.has_changes and time.monotonic() >= self._due
        if self._folder is None or self._index is None or part is None or self._index.is_moving or not is_due:
            return
        self._due = time.monotonic() + self._every_seconds
        began = time.monotonic()
        try:
            size = await asyncio.to_thread(save, self._folder, self._space, part, self._index.made_for, position)
        except OSError as error:
            _log.warning("the snapshot can't be written: space=%s %s", self._space.name, error)
            return
        self.has_changes = False
        seconds = time.monotonic() - began
        _log.info("snapshot written: space=%s bytes=%d seconds=%.1f", self._space.name, size, seconds)
