"""Which space is active, and a fully built index of it: a switch builds the new one beside the old, then swaps."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from feedmill.backoff import Backoff
from feedmill.errors import ModelError, Outage
from feedmill.spaces import Space, active_pointer, active_space
from feedmill.store import Store
from feedmill_hint.mirror import FIRST_RETRY_SECONDS, SpaceMirror
from feedmill_hint.settings import FollowSettings
from feedmill_hint.vectors import Index

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A space and its index. Whoever answers a request keeps to one snapshot: an answer never mixes spaces."""

    space: Space
    index: Index


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    mirror: SpaceMirror
    snapshot: Snapshot
    task: asyncio.Task[None]


class Follower:
    """Keeps :attr:`snapshot` at the active space. Make it and use it on one event loop; :meth:`run` is its one task."""

    def __init__(self, store: Store, settings: FollowSettings) -> None:
        self._store = store
        self._settings = settings
        self._current: _Running | None = None
        self._next: _Running | None = None
        self._ended: SpaceMirror | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._knows_pointer = False
        self.was_switched = False
        """Whether another space was ever the active one, as far as the pointer was read."""
        self._problem = ""

    @property
    def snapshot(self) -> Snapshot | None:
        """The active space with its index, fully loaded; None while there is none."""
        return self._current.snapshot if self._current else None

    def missing(self) -> str | None:
        """What keeps hints from being answered well; None: nothing.

        A database without an active space is no obstacle: nothing has been encoded yet, and that is what hints say.
        """
        if self._current:
            if self._current.mirror.problem:
                return self._current.mirror.problem
            age = self._current.mirror.age_seconds()
            is_stale = age > self._settings.index_stale_seconds
            return f"the index has not been brought up to date for {age:.0f} s" if is_stale else None
        if self._next:
            space, index = self._next.snapshot.space, self._next.snapshot.index
            if self._next.mirror.problem:
                return self._next.mirror.problem
            expected = self._next.mirror.expected
            return (
                f"the index of space {space.name} is being loaded: {len(index)} of {expected or 'all'} vectors so far"
            )
        if self._knows_pointer:
            return None
        return f"the active space is not known yet: {self._problem or 'the database has not answered'}"

    def state(self) -> dict[str, Any]:
        """Figures for people, as JSON types."""
        if self._current is None:
            vectors = len(self._next.mirror.index) if self._next else 0
            expected = self._next.mirror.expected if self._next else 0
            return {"space": None, "vectors": vectors, "expected": expected, "missing": self.missing()}
        mirror = self._current.mirror
        return {
            "space": mirror.space.name,
            "vectors": len(mirror.index),
            "follow": mirror.mode,
            "age_seconds": round(mirror.age_seconds(), 3),
            "lag_seconds": round(mirror.lag_seconds, 3),
            "bytes": mirror.index.bytes_used(),
            "kind": mirror.index.kind,
            "probes": mirror.growth.probes,
            "recall": mirror.growth.recall,
            "next_space": self._next.mirror.space.name if self._next else None,
            "next_problem": self._next.mirror.problem if self._next else None,
            "missing": self.missing(),
        }

    async def run(self) -> None:
        """Follow until cancelled. Failures are logged and healed by trying again, forever."""
        backoff = Backoff(FIRST_RETRY_SECONDS, self._settings.index_backoff_max_seconds)
        try:
            while True:
                try:
                    await self._read_pointer()
                except (Outage, ModelError) as error:
                    self._note_problem(str(error))
                    await asyncio.sleep(backoff.next())
                except Exception:  # a bug must not leave the worker at an old space for ever
                    _log.exception("the active space can't be read")
                    await asyncio.sleep(backoff.next())
                else:
                    self._problem = ""
                    backoff.reset()
                    await self._wait_and_swap()
        finally:
            self._ended = self._current.mirror if self._current else None
            await self._stop(self._next, self._current)
            self._next = self._current = None

    async def keep(self, within_seconds: float) -> None:
        """After :meth:`run` was cancelled: write a last snapshot, where that takes no longer."""
        if self._ended:
            await self._ended.keep(within_seconds)

    def _note_problem(self, problem: str) -> None:
        if problem != self._problem:  # once, not every few seconds
            _log.warning("the active space can't be read: %s", problem)
        self._problem = problem

    async def _read_pointer(self) -> None:
        """Start to build the index of the active space, unless it is there or under way."""
        pointer = await active_pointer(self._store)
        if pointer is None:
            self._knows_pointer = True
            return
        name, self.was_switched = pointer.space, pointer.is_switch
        if self._next and self._next.mirror.space.name != name:  # switched again, or back, before it was loaded
            abandoned, self._next = self._next, None
            await self._stop(abandoned)
        if name in {running.mirror.space.name for running in (self._current, self._next) if running}:
            return
        space = await active_space(self._store)
        if space is not None:
            self._next = self._start(space)
            self._knows_pointer = True

    async def _wait_and_swap(self) -> None:
        """Wait until the pointer is to be read again; swap as soon as the new index is complete."""
        if self._next is None:
            await asyncio.sleep(self._settings.space_poll_seconds)
            return
        try:
            async with asyncio.timeout(self._settings.space_poll_seconds):
                await self._next.mirror.loaded.wait()
        except TimeoutError:
            return
        former, self._current, self._next = self._current, self._next, None
        _log.info("hints are answered from: space=%s", self._current.mirror.space.name)
        await self._stop(former)

    def _start(self, space: Space) -> _Running:
        former = self._current.mirror.index if self._current else None
        mirror = SpaceMirror(self._store, space, self._settings, lambda: self._taken_by(former))
        task = asyncio.create_task(mirror.run(), name=f"mirror {space.name}")
        return _Running(mirror, Snapshot(space, mirror.index), task)

    def _taken_by(self, former: Index | None) -> int:
        """Memory of the index that answers while the next one is made, until that has taken its place."""
        is_there = former is not None and self._current is not None and self._current.mirror.index is former
        return former.bytes_used() if former is not None and is_there else 0

    async def _stop(self, *running: _Running | None) -> None:
        for entry in running:
            if entry:
                entry.task.cancel()
                # Noted, because this call may itself be cancelled while it waits: then the end of run() waits for them.
                self._ending.add(entry.task)
                entry.task.add_done_callback(self._ending.discard)
        if self._ending:
            await asyncio.wait(self._ending.copy(), timeout=self._store.settings.operation_timeout_seconds)
