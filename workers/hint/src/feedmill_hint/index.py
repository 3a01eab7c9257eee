"""A space's vectors in memory: searched exactly while they are few, through an inverted file when they are many."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from feedmill.errors import FeedmillError
from feedmill.ids import PostId
from feedmill_hint.exact import ExactPart
from feedmill_hint.ivf import TRAINING_PER_LIST, IvfPart, lists_for
from feedmill_hint.locks import SharedLock
from feedmill_hint.vectors import Matrix, Scored, rank, unit_rows, usable

__all__ = ["IndexFull", "IndexLimits", "Matrix", "Scored", "VectorIndex", "usable"]

MOVED_AT_ONCE = 512
"""Vectors that change places in one turn of the lock: a search waits for some milliseconds at most."""
REBUILD_GROWTH = 4
"""An inverted file that holds so many times the vectors that it was made for gets a successor with more lists."""


class IndexFull(FeedmillError):
    """The vectors don't fit into the memory that the index may take."""


@dataclass(frozen=True, slots=True)
class IndexLimits:
    """How large an index may be, and when it stops searching exactly."""

    exact_below: int = 10_000
    max_bytes: int = 0
    """0: no limit."""


class VectorIndex:
    """The vectors of one space by id, normalised to length one.

    Made of parts, each id in one of them: usually one; two while vectors move from the old to the new one, a few at a
    time, so that the vectors are never in memory twice and searches go on.

    Safe for writers beside any number of readers in other threads: a lock lets readers run side by side and a writer
    alone, so that a reader sees each batch of changes as a whole or not at all. Every method may wait for that lock as
    long as a search takes: call them in a thread, not on an event loop.
    """

    def __init__(
        self, dimensions: int, limits: IndexLimits | None = None, taken: Callable[[], int] = lambda: 0
    ) -> None:
        """``taken``: bytes of ``limits.max_bytes`` that another index has, now."""
        self.dimensions = dimensions
        self._taken = taken
        self._limits = limits or IndexLimits()
        self._lock = SharedLock()
        self._parts: list[ExactPart | IvfPart] = [ExactPart(dimensions)]
        self._made_for = 0
        self._expected = 0
        self._random = np.random.default_rng()

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def kind(self) -> str:
        """``exact`` or ``ivf``: how most of it is searched."""
        return "ivf" if isinstance(self._parts[-1], IvfPart) else "exact"

    @property
    def probes(self) -> int:
        """Lists that a search looks through; 0 for an exact one."""
        return part.probes if (part := self.inverted_file) else 0

    @property
    def inverted_file(self) -> IvfPart | None:
        """The newest part, if it is one."""
        part = self._parts[-1]
        return part if isinstance(part, IvfPart) else None

    @property
    def made_for(self) -> int:
        """How many vectors the inverted file was made for."""
        return self._made_for

    @property
    def is_moving(self) -> bool:
        return len(self._parts) > 1

    def bytes_used(self) -> int:
        """Memory, as far as it grows with the vectors."""
        return sum(part.bytes_used() for part in self._parts)

    def ids(self) -> set[PostId]:
        """All ids, as they are now."""
        with self._lock.shared():
            return {post_id for part in self._parts for post_id in part.ids()}

    def vectors(self, ids: Iterable[PostId]) -> dict[PostId, Matrix]:
        """Copies of the unit vectors (``[dimensions]``) of those of ``ids`` that are there."""
        wanted = list(ids)
        with self._lock.shared():
            return {post_id: row for part in self._parts for post_id, row in part.vectors(wanted).items()}

    def expect(self, vectors: int) -> None:
        """Say how many there will be. Raises IndexFull where they won't fit."""
        self._expected = vectors
        self._check_room(vectors - len(self))

    def sample_size(self) -> int:
        """How many vectors by chance an empty index wants to learn from before it is filled; 0: none."""
        if len(self) or self.kind == "ivf" or self._expected < self._limits.exact_below:
            return 0
        return TRAINING_PER_LIST * lists_for(self._expected)

    def begin(self, sample: Matrix) -> None:
        """Learn an empty index's lists from ``sample`` (``[n, dimensions]``): then it is filled in place, without a
        float32 copy of its first vectors, and knows the topics of all of them. Takes seconds; overwrites ``sample``."""
        kept = 0
        for start in range(0, len(sample), MOVED_AT_ONCE):  # in place: it is as large as a small index
            rows = sample[start : start + MOVED_AT_ONCE]
            units = unit_rows(rows[usable(rows)], self.dimensions)
            sample[kept : kept + len(units)] = units
            kept += len(units)
        units = sample[:kept]
        if not kept:
            return
        part = IvfPart.trained(units, min(lists_for(self._expected), len(units)))
        with self._lock.alone():
            if not len(self):
                self._parts, self._made_for = [part], self._expected

    def upsert(self, ids: Sequence[PostId], vectors: Matrix) -> None:
        """Add ``vectors`` (``[n, dimensions]``), or replace those whose id is there. The last of equal ids counts.

        Raises:
            ValueError: another shape, or a vector without a direction (see :func:`usable`).
            IndexFull: no room. Nothing is added.
        """
        if len(ids) != len(vectors):
            raise ValueError(f"ids: expected one for each of {len(vectors)} vectors, got {len(ids)}")
        units = unit_rows(vectors, self.dimensions)
        rows = {post_id: row for row, post_id in enumerate(ids)}
        self._check_room(len(rows))
        unique = list(rows)
        for start in range(0, len(unique), MOVED_AT_ONCE):
            part = unique[start : start + MOVED_AT_ONCE]
            with self._lock.alone():
                self._put(part, units[[rows[post_id] for post_id in part]])

    def replace_all(self, part: IvfPart, made_for: int) -> None:
        """Take a part that was read from a snapshot in place of everything. Raises IndexFull."""
        self._check_room(len(part))
        with self._lock.alone():
            self._parts, self._made_for = [part], made_for

    @contextmanager
    def unchanging(self) -> Iterator[IvfPart | None]:
        """The inverted file if that is all there is, while writers wait: for a snapshot."""
        with self._lock.shared():
            yield None if self.is_moving else self.inverted_file

    def delete(self, ids: Iterable[PostId]) -> int:
        """Forget ``ids``; those that are not there don't matter. Answers how many were there."""
        wanted = list(ids)
        with self._lock.alone():
            return sum(part.delete(wanted) for part in self._parts)

    def search(self, vectors: Matrix, k: int, exclude: Sequence[PostId | None]) -> list[Scored]:
        """For each of ``vectors`` (``[n, dimensions]``) the ``k`` most similar ids, without its own ``exclude``.

        The score is the cosine, rounded to six digits; equal scores are in order of the id's text, so that an answer
        does not depend on the order in which vectors arrived.

        Raises:
            ValueError: another shape, or a vector without a direction.
        """
        if k < 1 or len(exclude) != len(vectors):
            raise ValueError(f"expected k of at least 1 and one id to exclude per vector, got {k} and {len(exclude)}")
        queries = unit_rows(vectors, self.dimensions)
        with self._lock.shared():
            answers = [part.search(queries, k, exclude) for part in self._parts]
        if len(answers) == 1:
            return answers[0]
        return [
            heapq.nsmallest(k, (entry for one in several for entry in one), key=rank)
            for several in zip(*answers, strict=True)
        ]

    # ---- growing: called by whoever writes, between writes

    def wants_successor(self) -> bool:
        """Whether there are enough vectors for an inverted file, or for one with more lists, and none is under way."""
        count = len(self)
        if self.is_moving or count < self._limits.exact_below:
            return False
        if self.kind == "ivf":
            return count >= REBUILD_GROWTH * self._made_for
        # While it is being filled, wait for a sample of what is to come.
        goal = max(count, self._expected)
        return count >= min(goal, max(TRAINING_PER_LIST * lists_for(goal), goal // 8))

    def add_successor(self) -> None:
        """Train an inverted file on a sample and make it the part that is written to. Takes seconds; searches go on."""
        goal = max(len(self), self._expected)
        lists = lists_for(goal)
        with self._lock.shared():
            sample = self._parts[-1].sample(TRAINING_PER_LIST * lists, self._random)
        part = IvfPart.trained(sample, min(lists, len(sample)))
        with self._lock.alone():
            self._parts.append(part)
            self._made_for = goal

    def move_some(self) -> bool:
        """Move some vectors to the newest part; answer whether there are more."""
        with self._lock.alone():
            if not self.is_moving:
                return False
            old = self._parts[0]
            ids = [post_id for post_id, _ in zip(old.ids(), range(MOVED_AT_ONCE), strict=False)]
            found = old.vectors(ids)
            if found:
                old.delete(list(found))
                self._put(list(found), unit_rows(np.stack(list(found.values())), self.dimensions))
            if not len(old):
                self._parts = self._parts[1:]
            return self.is_moving

    def tune(self, target: float, queries: int, k: int) -> float | None:
        """Look through as few lists as reach the recall ``target``, by ``queries`` samples; answer the recall."""
        part = self.inverted_file
        if part is None or self.is_moving:
            return None
        choices = [probes for probes in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256) if probes <= part.lists] or [
            part.lists
        ]
        with self._lock.shared():
            recalls = part.recall(part.sample(queries, self._random), k, choices)
        best = next((place for place, recall in enumerate(recalls) if recall >= target), len(choices) - 1)
        part.probes = choices[best]
        return recalls[best]

    def recall(self, queries: int, k: int) -> float | None:
        """The share of the ``k`` best that searches find, by ``queries`` of its own vectors; None while exact."""
        part = self.inverted_file
        if part is None:
            return None
        with self._lock.shared():
            sample = part.sample(queries, self._random)
            return part.recall(sample, k, [part.probes])[0] if len(sample) else None

    def _put(self, ids: Sequence[PostId], units: Matrix) -> None:
        for part in self._parts[:-1]:
            part.delete(ids)
        self._parts[-1].upsert(ids, units)

    def _check_room(self, more: int) -> None:
        limit = self._limits.max_bytes
        count = len(self) + max(0, more)
        needed = count * bytes_per_vector(self.dimensions, exact=count < self._limits.exact_below)
        if not limit or more <= 0:
            return
        room = limit - self._taken()
        if needed > room:
            beside = f", less what the index takes that answers meanwhile: {room >> 20} MiB" if room < limit else ""
            raise IndexFull(
                f"{count} vectors of {self.dimensions} dimensions need about {needed >> 20} MiB: expected at most "
                f"{limit >> 20} MiB (FEEDMILL_INDEX_MAX_BYTES, or the container's memory limit){beside}"
            )


def bytes_per_vector(dimensions: int, *, exact: bool) -> int:
    """Memory that one vector takes, with its id."""
    return 4 * dimensions + 300 if exact else 2 * dimensions + 200
