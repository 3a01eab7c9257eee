"""Approximate search: faiss's inverted file over float16 vectors (docs/adr/0003).

Vectors are kept in lists, one for each of some hundred or thousand centroids; a search looks through the ``probes``
lists whose centroids are nearest to the query. Scores are computed from the float16 vectors themselves, not from codes,
so all that can be missed is what lies in another list; how much that is, is measured (:meth:`IvfPart.recall`).
"""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from feedmill.ids import PostId
from feedmill_hint.faiss import faiss
from feedmill_hint.vectors import SCORE_DIGITS, Matrix, Scored, rank

TRAINING_PER_LIST = 24
TRAINING_ROUNDS = 8
FIRST_PROBES = 8
SPARE = 8
"""Found beyond what is asked for: room for equal scores, which are put in order afterwards."""

_ID_BYTES = 200  # its key, its place in a list, in a dict and in faiss's direct map

Key = bytes | str
"""An id as it is kept: the 12 bytes of an ObjectId take a third of its memory, and the garbage collector passes them
by."""


def lists_for(vectors: int) -> int:
    """How many lists for so many vectors: about two square roots, as a power of two."""
    return int(2 ** round(math.log2(max(16.0, 2 * math.sqrt(vectors)))))


class IvfPart:
    """See :class:`feedmill_hint.vectors.Part`."""

    def __init__(self, index: Any, keys: list[Key | None], probes: int = FIRST_PROBES) -> None:
        self._index = index
        self._keys = keys
        self._labels: dict[Key, int] = {key: label for label, key in enumerate(keys) if key is not None}
        self._free = [label for label, key in enumerate(keys) if key is None]
        self.probes = probes

    @classmethod
    def trained(cls, sample: Matrix, lists: int) -> IvfPart:
        """An empty part whose centroids are learnt from ``sample`` (``[n, dimensions]``, unit vectors). Blocking."""
        dimensions = sample.shape[1]
        quantizer = faiss.IndexFlatIP(dimensions)
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, dimensions, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        quantizer.this.disown()  # the index owns it, as one that was read from a file does
        index.own_fields = True
        index.cp.niter = TRAINING_ROUNDS
        index.cp.spherical = True
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = 4 * TRAINING_PER_LIST
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
        index.train(np.ascontiguousarray(sample))
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return cls(index, [])

    @property
    def index(self) -> Any:
        """faiss's own index, for a snapshot."""
        return self._index

    @property
    def keys(self) -> Sequence[Key | None]:
        """The key of each label; None: free."""
        return self._keys

    @property
    def lists(self) -> int:
        return int(self._index.nlist)

    def __len__(self) -> int:
        return len(self._labels)

    def ids(self) -> Iterable[PostId]:
        return (_post_id(key) for key in self._labels)

    def first_ids(self, count: int) -> list[PostId]:
        """Some of the ids."""
        return [_post_id(key) for key, _ in zip(self._labels, range(count), strict=False)]

    def vectors(self, ids: Iterable[PostId]) -> dict[PostId, Matrix]:
        found = [(post_id, self._labels[key]) for post_id in ids if (key := _key(post_id)) in self._labels]
        if not found:
            return {}
        rows = self._index.reconstruct_batch(np.array([label for _, label in found], np.int64))
        return {post_id: row for (post_id, _), row in zip(found, rows, strict=True)}

    def upsert(self, ids: Sequence[PostId], units: Matrix) -> None:
        keys = [_key(post_id) for post_id in ids]
        known = [self._labels[key] for key in keys if key in self._labels]
        if known:
            self._index.remove_ids(np.array(known, np.int64))
        labels = np.array([self._labels.get(key, -1) for key in keys], np.int64)
        for place in np.flatnonzero(labels < 0):
            labels[place] = self._new_label(keys[place])
        faiss.omp_set_num_threads(1)
        self._index.add_with_ids(np.ascontiguousarray(units), labels)

    def delete(self, ids: Iterable[PostId]) -> int:
        keys = {key for post_id in ids if (key := _key(post_id)) in self._labels}
        labels = [self._labels.pop(key) for key in keys]
        for label in labels:
            self._keys[label] = None
        self._free.extend(labels)
        if labels:
            self._index.remove_ids(np.array(labels, np.int64))
        return len(labels)

    def search(self, queries: Matrix, k: int, exclude: Sequence[PostId | None]) -> list[Scored]:
        depth = min(k + 1 + SPARE, max(1, len(self)))
        # Who asks for very many needs lists that hold several times as many.
        needed = math.ceil(4 * depth * self.lists / max(1, len(self)))
        found = self._nearest(queries, depth, max(self.probes, needed))
        asked = zip(queries, found, exclude, strict=True)
        return [self._best(query, labels[labels >= 0], k, excluded) for query, labels, excluded in asked]

    def recall(self, queries: Matrix, k: int, probes: Sequence[int]) -> list[float]:
        """For each number of ``probes`` the share of the ``k`` best that it finds, against a search of all lists.

        What scores like the last of the ``k`` best counts as one of them.
        """
        depth = min(k, max(1, len(self)))
        exact = np.sort(self._scores(queries, depth, self.lists), axis=1)[:, :1]
        return [
            float(
                np.mean(np.minimum((self._scores(queries, depth, number) >= exact - 1e-6).sum(axis=1), depth)) / depth
            )
            for number in probes
        ]

    def sample(self, size: int, random: np.random.Generator) -> Matrix:
        """Up to ``size`` of the vectors, any of them equally likely (``[n, dimensions]``)."""
        labels = np.unique(random.integers(0, max(1, len(self._keys)), size))
        taken = np.array([label for label in labels.tolist() if self._keys[label] is not None], np.int64)
        return (
            cast("Matrix", self._index.reconstruct_batch(taken))
            if len(taken)
            else np.empty((0, self._index.d), np.float32)
        )

    def bytes_used(self) -> int:
        dimensions = int(self._index.d)
        return (2 * dimensions + _ID_BYTES) * len(self) + 4 * self.lists * dimensions

    def _nearest(self, queries: Matrix, k: int, probes: int) -> NDArray[np.int64]:
        return cast("NDArray[np.int64]", self._search(queries, k, probes)[1])

    def _scores(self, queries: Matrix, k: int, probes: int) -> Matrix:
        return cast("Matrix", self._search(queries, k, probes)[0])

    def _search(self, queries: Matrix, k: int, probes: int) -> Any:
        # One query is too little to share out, and threads that wait for each other cost a busy machine a lot.
        faiss.omp_set_num_threads(1)
        params = faiss.IVFSearchParameters(nprobe=min(probes, self.lists))
        return self._index.search(np.ascontiguousarray(queries), k, params=params)

    def _best(self, query: Matrix, labels: NDArray[np.int64], k: int, excluded: PostId | None) -> Scored:
        if not len(labels):
            return []
        # Again in float64: equal vectors get equal scores, whichever list they are in.
        rows = self._index.reconstruct_batch(labels).astype(np.float64)
        scores = rows @ query.astype(np.float64) / np.linalg.norm(rows, axis=1)
        pairs = (
            (self._keys[label], round(float(score), SCORE_DIGITS)) for label, score in zip(labels, scores, strict=True)
        )
        found = ((_post_id(key), score) for key, score in pairs if key is not None)
        return heapq.nsmallest(k, (entry for entry in found if entry[0] != excluded), key=rank)

    def _new_label(self, key: Key) -> int:
        if self._free:
            label = self._free.pop()
            self._keys[label] = key
        else:
            label = len(self._keys)
            self._keys.append(key)
        self._labels[key] = label
        return label


def _key(post_id: PostId) -> Key:
    return post_id.binary if isinstance(post_id, ObjectId) else post_id


def _post_id(key: Key) -> PostId:
    return ObjectId(key) if isinstance(key, bytes) else key
