"""What an index needs beside being followed: a better structure as it grows, and its recall checked now and then."""

from __future__ import annotations

import asyncio
import logging
import time

from feedmill_hint.index import VectorIndex
from feedmill_hint.settings import FollowSettings
from feedmill_hint.vectors import Index

TUNING_QUERIES = 64
CHECK_QUERIES = 2
RECALL_K = 10
LOOK_SECONDS = 1.0
SMOOTHING = 0.05
"""The share of the newest check in the recall that is shown: about the mean of the last forty checks."""

_log = logging.getLogger(__name__)


class Growth:
    """Run :meth:`run` as a task beside the mirror that writes to ``index``."""

    def __init__(self, index: Index, settings: FollowSettings) -> None:
        self.recall: float | None = None
        """Share of the ten best that searches find, by samples; None: exact, or not measured yet."""
        self._index = index if isinstance(index, VectorIndex) else None  # a server sees to its own
        self._settings = settings
        self._turn = asyncio.Lock()

    @property
    def probes(self) -> int:
        """Lists that a search looks through; 0: it does not go by lists."""
        return self._index.probes if self._index else 0

    async def run(self) -> None:
        """Never returns; cancel it."""
        check_at = time.monotonic() + self._settings.index_recall_seconds
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.grow()
                if time.monotonic() >= check_at:
                    await self._check()
                    check_at = time.monotonic() + self._settings.index_recall_seconds
            except Exception:  # searches go on with what there is
                _log.exception("the index can't be improved")
                await asyncio.sleep(self._settings.index_backoff_max_seconds)

    async def grow(self, *, is_complete: bool = True) -> None:
        """Give the index a new structure where it has outgrown the old one; tune it once ``is_complete``."""
        if self._index is None:
            return
        async with self._turn:
            if await asyncio.to_thread(self._index.wants_successor):
                await self._restructure(self._index)
            if is_complete and self.recall is None and self._index.kind == "ivf":
                await self._tune(self._index)

    async def _restructure(self, index: VectorIndex) -> None:
        began = time.monotonic()
        await asyncio.to_thread(index.add_successor)
        while await asyncio.to_thread(index.move_some):
            pass
        _log.info("index restructured: vectors=%d seconds=%.1f", len(index), time.monotonic() - began)
        self.recall = None

    async def _tune(self, index: VectorIndex) -> None:
        target = self._settings.index_recall_target
        self.recall = await asyncio.to_thread(index.tune, target, TUNING_QUERIES, RECALL_K)
        _log.info("index tuned: recall=%.4f probes=%d target=%s", self.recall or 0, index.probes, target)

    async def _check(self) -> None:
        if self._index is None:
            return
        measured = await asyncio.to_thread(self._index.recall, CHECK_QUERIES, RECALL_K)
        if measured is None or self.recall is None:
            return
        self.recall += SMOOTHING * (measured - self.recall)
        if self.recall < self._settings.index_recall_target - 0.02:  # the texts have moved away from the centroids
            await self._tune(self._index)
