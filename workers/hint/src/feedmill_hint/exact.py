"""Exact search: one matrix product over float32 vectors. As fast as anything up to some ten thousand of them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from feedmill.ids import PostId
from feedmill_hint.vectors import SCORE_DIGITS, Matrix, Scored, rank

BLOCK_SCORES = 4_000_000
"""Scores computed at once at most: bounds a search's memory to some 50 MB, however large the index is."""
MAX_TIES = 4096
"""Of more equal vectors than this, those of the first rows count: a thousand copies of one post stay cheap."""

_FIRST_CAPACITY = 1024
_TIE_MARGIN = 2 * 10.0**-SCORE_DIGITS  # more than a float32 product is typically wrong by
_ID_BYTES = 300  # an ObjectId, its place in a list, in a dict


class ExactPart:
    """See :class:`feedmill_hint.vectors.Part`."""

    def __init__(self, dimensions: int) -> None:
        self._matrix: Matrix = np.empty((_FIRST_CAPACITY, dimensions), np.float32)
        self._ids: list[PostId] = []
        self._rows: dict[PostId, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> list[PostId]:
        return self._ids

    def vectors(self, ids: Iterable[PostId]) -> dict[PostId, Matrix]:
        rows = ((post_id, self._rows.get(post_id)) for post_id in ids)
        return {post_id: self._matrix[row].copy() for post_id, row in rows if row is not None}

    def upsert(self, ids: Sequence[PostId], units: Matrix) -> None:
        self._reserve(len(self._ids) + len(ids))
        for post_id, unit in zip(ids, units, strict=True):
            row = self._rows.setdefault(post_id, len(self._ids))
            if row == len(self._ids):
                self._ids.append(post_id)
            self._matrix[row] = unit

    def delete(self, ids: Iterable[PostId]) -> int:
        rows = (self._rows.pop(post_id, None) for post_id in ids)
        removed = 0
        for row in rows:
            if row is not None:
                self._fill_gap(row)
                removed += 1
        return removed

    def search(self, queries: Matrix, k: int, exclude: Sequence[PostId | None]) -> list[Scored]:
        candidates = self._candidates(queries, k + 1)  # one more than asked for: the excluded one may be among them
        return [
            self._best(query, rows, k, excluded)
            for query, rows, excluded in zip(queries, candidates, exclude, strict=True)
        ]

    def sample(self, size: int, random: np.random.Generator) -> Matrix:
        """``size`` of the vectors, any of them equally likely (``[size, dimensions]``)."""
        rows = random.choice(len(self._ids), size=min(size, len(self._ids)), replace=False)
        return self._matrix[rows]

    def bytes_used(self) -> int:
        return self._matrix.nbytes + _ID_BYTES * len(self._ids)

    def _reserve(self, rows: int) -> None:
        if rows > len(self._matrix):
            larger: Matrix = np.empty((max(rows, 2 * len(self._matrix)), self._matrix.shape[1]), np.float32)
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
        return heapq.nsmallest(k, others, key=rank)


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
