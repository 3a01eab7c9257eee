"""Exact search for similar vectors, in memory: one matrix product over unit vectors."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
from numpy.typing import NDArray

from feedmill.ids import PostId, id_text

Matrix = NDArray[np.float32]
Scored = list[tuple[PostId, float]]
"""Ids with their cosine, best first."""

BLOCK_SCORES = 4_000_000
"""Scores computed at once at most: bounds a search's memory to some 50 MB, however large the index is."""
SCORE_DIGITS = 6
"""What a float32 vector is good for."""
MAX_TIES = 4096
"""Of more equal vectors than this, those of the first rows count: a thousand copies of one post stay cheap."""

_FIRST_CAPACITY = 1024
_TIE_MARGIN = 2 * 10.0**-SCORE_DIGITS  # more than a float32 product is typically wrong by


class VectorIndex:
    """The vectors of one space by id, normalised to length one.

    Safe for one writer beside any number of readers in other threads: a lock lets readers run side by side and a writer
    alone, so that a reader sees each batch of changes as a whole or not at all. Every method may wait for that lock as
    long as a search takes: call them in a thread, not on an event loop.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._lock = _SharedLock()
        self._matrix: Matrix = np.empty((_FIRST_CAPACITY, dimensions), np.float32)
        self._ids: list[PostId] = []
        self._rows: dict[PostId, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> set[PostId]:
        """All ids, as they are now."""
        with self._lock.shared():
            return set(self._ids)

    def vectors(self, ids: Iterable[PostId]) -> dict[PostId, Matrix]:
        """Copies of the unit vectors (``[dimensions]``) of those of ``ids`` that are there."""
        with self._lock.shared():
            rows = ((post_id, self._rows.get(post_id)) for post_id in ids)
            return {post_id: self._matrix[row].copy() for post_id, row in rows if row is not None}

    def upsert(self, ids: Sequence[PostId], vectors: Matrix) -> None:
        """Add ``vectors`` (``[n, dimensions]``), or replace those whose id is there. The last of equal ids counts.

        Raises:
            ValueError: another shape, or a vector without a direction (see :func:`usable`).
        """
        if len(ids) != len(vectors):
            raise ValueError(f"ids: expected one for each of {len(vectors)} vectors, got {len(ids)}")
        units = self._unit_rows(vectors)
        with self._lock.alone():
            self._reserve(len(self._ids) + len(ids))
            for post_id, unit in zip(ids, units, strict=True):
                row = self._rows.setdefault(post_id, len(self._ids))
                if row == len(self._ids):
                    self._ids.append(post_id)
                self._matrix[row] = unit

    def delete(self, ids: Iterable[PostId]) -> int:
        """Forget ``ids``; those that are not there don't matter. Answers how many were there."""
        removed = 0
        with self._lock.alone():
            for post_id in ids:
                row = self._rows.pop(post_id, None)
                if row is not None:
                    self._fill_gap(row)
                    removed += 1
        return removed

    def search(self, vectors: Matrix, k: int, exclude: Sequence[PostId | None]) -> list[Scored]:
        """For each of ``vectors`` (``[n, dimensions]``) the ``k`` most similar ids, without its own ``exclude``.

        The score is the cosine, rounded to six digits; equal scores are in order of the id's text, so that an answer
        does not depend on the order in which vectors arrived.

        Raises:
            ValueError: another shape, or a vector without a direction.
        """
        if k < 1 or len(exclude) != len(vectors):
            raise ValueError(f"expected k of at least 1 and one id to exclude per vector, got {k} and {len(exclude)}")
        queries = self._unit_rows(vectors)
        with self._lock.shared():
            candidates = self._candidates(queries, k + 1)  # one more than asked for: the excluded one may be among them
            return [
                self._best(query, rows, k, excluded)
                for query, rows, excluded in zip(queries, candidates, exclude, strict=True)
            ]

    def _unit_rows(self, vectors: Matrix) -> Matrix:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimensions:
            raise ValueError(f"vectors: expected the shape [n, {self.dimensions}], got {list(vectors.shape)}")
        sound = usable(vectors)
        if not sound.all():
            raise ValueError(f"vectors: row {int(np.argmin(sound))} is zero or holds NaN or an infinity")
        # In float64: the squares of large and of tiny float32 numbers leave float32's range.
        wide = vectors.astype(np.float64)
        return cast("Matrix", (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32))

    def _reserve(self, rows: int) -> None:
        if rows > len(self._matrix):
            larger: Matrix = np.empty((max(rows, 2 * len(self._matrix)), self.dimensions), np.float32)
            larger[: len(self._ids)] = self._matrix[: len(self._ids)]
            self._matrix = larger

    def _fill_gap(self, row: int) -> None:
        """Move the last row to ``row``, so that rows stay without gaps."""
        last_id = self._ids.pop()
        last_row = len(self._ids)
        if row != last_row:
            self._matrix[row] = self._matrix[last_row]
            self._ids[row] = last_id
            self._rows[last_id] = row

    def _candidates(self, queries: Matrix, k: int) -> list[NDArray[np.intp]]:
        """For each query the rows of its ``k`` best and of all that tie with the last of them, nearly."""
        scores: list[Matrix] = [np.empty(0, np.float32)] * len(queries)
        rows: list[NDArray[np.intp]] = [np.empty(0, np.intp)] * len(queries)
        block_rows = max(1, BLOCK_SCORES // max(1, len(queries)))
        for start in range(0, len(self._ids), block_rows):
            block = queries @ self._matrix[start : min(start + block_rows, len(self._ids))].T
            floors = _kth_largest(block, k) - _TIE_MARGIN
            for query, floor in enumerate(floors):
                chosen = np.flatnonzero(block[query] >= floor)
                scores[query], rows[query] = _prune(
                    np.concatenate([scores[query], block[query, chosen]]),
                    np.concatenate([rows[query], chosen + start]),
                    k,
                )
        return rows

    def _best(self, query: Matrix, rows: NDArray[np.intp], k: int, excluded: PostId | None) -> Scored:
        # Again in float64: in float32 equal vectors get scores that differ with their places in the product.
        scores = self._matrix[rows].astype(np.float64) @ query.astype(np.float64)
        found = ((self._ids[row], round(float(score), SCORE_DIGITS)) for score, row in zip(scores, rows, strict=True))
        others = (entry for entry in found if entry[0] != excluded)
        return heapq.nsmallest(k, others, key=lambda entry: (-entry[1], id_text(entry[0]), isinstance(entry[0], str)))


def usable(vectors: Matrix) -> NDArray[np.bool_]:
    """For each row whether it has a direction: finite numbers, not all of them zero."""
    return cast("NDArray[np.bool_]", np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))


def _kth_largest(block: Matrix, k: int) -> Matrix:
    columns = block.shape[1]
    if columns <= k:
        return np.full(len(block), -np.inf, np.float32)
    return np.partition(block, columns - k, axis=1)[:, columns - k]


def _prune(scores: Matrix, rows: NDArray[np.intp], k: int) -> tuple[Matrix, NDArray[np.intp]]:
    if len(scores) <= k:
        return scores, rows
    kept = np.flatnonzero(scores >= _kth_largest(scores[np.newaxis, :], k)[0] - _TIE_MARGIN)
    if len(kept) > k + MAX_TIES:
        kept = kept[np.argsort(-scores[kept], kind="stable")[: k + MAX_TIES]]
    return scores[kept], rows[kept]


class _SharedLock:
    """A lock that many readers or one writer hold. A waiting writer goes before new readers: it never starves."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writers = 0  # waiting or writing
        self._writing = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._writers += 1
            self._changed.wait_for(lambda: not self._readers and not self._writing)
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._writers -= 1
                self._changed.notify_all()
