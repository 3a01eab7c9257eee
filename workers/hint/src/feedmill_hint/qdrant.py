"""A space's vectors on a Qdrant server, for more posts than a pod can hold: docs/adr/0004.

The same interface as the index in memory, so hint's pods keep it like the database in the same way. Several pods do so
side by side: every write is by id, so that they repeat each other and nothing else.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from bson import ObjectId

from feedmill.errors import Outage, SettingsError
from feedmill.ids import PostId, id_text
from feedmill_hint.vectors import SCORE_DIGITS, Matrix, Scored, rank, unit_rows

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

COLLECTION_PREFIX = "feedmill-"
PORTION = 256
"""Points in one request."""
SPARE = 8
"""Found beyond what is asked for: room for equal scores, which are put in order afterwards."""

_NAMESPACE = uuid.UUID("a8b3d4f0-3f0c-5d5b-9f0e-6c1d2e3f4a5b")


class QdrantIndex:
    """See :class:`feedmill_hint.vectors.Index`. Every method but ``len`` asks the server, and raises Outage."""

    kind = "qdrant"

    def __init__(self, client: QdrantClient, space: str, dimensions: int) -> None:
        from qdrant_client import models

        self.dimensions = dimensions
        self._client = client
        self._models = models
        self._name = COLLECTION_PREFIX + space
        self._count = 0
        self._exists = False

    def __len__(self) -> int:
        """As of the last write."""
        return self._count

    def bytes_used(self) -> int:
        return 0

    def expect(self, vectors: int) -> None:
        """The server's memory is the server's."""

    def ids(self) -> set[PostId]:
        found: set[PostId] = set()
        with self._call():
            offset: Any = None
            while True:
                points, offset = self._client.scroll(self._name, limit=10_000, offset=offset, with_payload=True)
                found.update(_post_id(point.payload) for point in points)
                if offset is None:
                    return found

    def vectors(self, ids: Iterable[PostId]) -> dict[PostId, Matrix]:
        wanted = [_point_id(post_id) for post_id in ids]
        with self._call():
            points = self._client.retrieve(self._name, wanted, with_vectors=True) if wanted else []
        return {_post_id(point.payload): np.array(point.vector, np.float32) for point in points}

    def upsert(self, ids: Sequence[PostId], vectors: Matrix) -> None:
        units = unit_rows(vectors, self.dimensions)
        rows = {post_id: row for row, post_id in enumerate(ids)}
        unique = list(rows)
        with self._call():
            for start in range(0, len(unique), PORTION):
                part = unique[start : start + PORTION]
                batch = self._models.Batch(
                    ids=[_point_id(post_id) for post_id in part],
                    vectors=[units[rows[post_id]].tolist() for post_id in part],
                    payloads=[{"id": id_text(post_id), "oid": isinstance(post_id, ObjectId)} for post_id in part],
                )
                self._client.upsert(self._name, batch, wait=True)
            self._recount()

    def delete(self, ids: Iterable[PostId]) -> int:
        points: list[Any] = [_point_id(post_id) for post_id in ids]
        if not points:
            return 0
        with self._call():
            before = self._client.count(self._name, exact=True).count
            self._client.delete(self._name, self._models.PointIdsList(points=points), wait=True)
            self._recount()
        return before - self._count

    def search(self, vectors: Matrix, k: int, exclude: Sequence[PostId | None]) -> list[Scored]:
        if k < 1 or len(exclude) != len(vectors):
            raise ValueError(f"expected k of at least 1 and one id to exclude per vector, got {k} and {len(exclude)}")
        queries = unit_rows(vectors, self.dimensions)
        asked = [
            self._models.QueryRequest(
                query=query.tolist(), limit=k + SPARE, filter=self._without(excluded), with_payload=True
            )
            for query, excluded in zip(queries, exclude, strict=True)
        ]
        with self._call():
            answers = self._client.query_batch_points(self._name, asked)
        return [heapq.nsmallest(k, (_scored(point) for point in answer.points), key=rank) for answer in answers]

    def _without(self, excluded: PostId | None) -> Any:
        if excluded is None:
            return None
        return self._models.Filter(must_not=[self._models.HasIdCondition(has_id=[_point_id(excluded)])])

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Make the collection on first use; the client's errors become Outage."""
        try:
            if not self._exists:
                self._make()
            yield
        except (ValueError, TypeError):  # ours
            raise
        except Exception as error:  # httpx's, grpc's and the client's own, which have no common base
            raise Outage("index", f"Qdrant: {type(error).__name__}: {error}") from error

    def _make(self) -> None:
        if not self._client.collection_exists(self._name):
            size = self._models.VectorParams(size=self.dimensions, distance=self._models.Distance.COSINE, on_disk=True)
            codes = self._models.ScalarQuantizationConfig(type=self._models.ScalarType.INT8, always_ram=True)
            quantization = self._models.ScalarQuantization(scalar=codes)
            self._client.create_collection(self._name, vectors_config=size, quantization_config=quantization)
        self._recount()
        self._exists = True

    def _recount(self) -> None:
        self._count = self._client.count(self._name, exact=True).count


def open_qdrant(url: str, api_key: str) -> QdrantClient:
    """A client; ``:memory:`` is one without a server, for tests. Raises SettingsError."""
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise SettingsError("FEEDMILL_INDEX_ENGINE: qdrant needs pip install feedmill-hint[qdrant]") from None
    if url == ":memory:":
        return QdrantClient(":memory:")
    if not url.startswith(("http://", "https://")):
        raise SettingsError("FEEDMILL_QDRANT_URL: expected a URL that starts with http:// or https://")
    return QdrantClient(url=url, api_key=api_key or None, timeout=10)


def _point_id(post_id: PostId) -> str:
    """Qdrant's ids are numbers or UUIDs."""
    kind = "oid" if isinstance(post_id, ObjectId) else "str"
    return str(uuid.uuid5(_NAMESPACE, f"{kind}:{id_text(post_id)}"))


def _post_id(payload: Any) -> PostId:
    return ObjectId(payload["id"]) if payload["oid"] else str(payload["id"])


def _scored(point: Any) -> tuple[PostId, float]:
    return _post_id(point.payload), round(float(point.score), SCORE_DIGITS)
