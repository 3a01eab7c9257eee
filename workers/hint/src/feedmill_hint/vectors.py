"""What the parts of the index share: types, unit vectors, the order of answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from feedmill.ids import PostId, id_text

Matrix = NDArray[np.float32]
Scored = list[tuple[PostId, float]]
"""Ids with their cosine, best first."""

SCORE_DIGITS = 6
"""What a float32 vector is good for."""


class Part(Protocol):
    """Some of a space's vectors. Without a lock of its own, and with unit vectors only: see VectorIndex."""

    def __len__(self) -> int: ...

    def ids(self) -> Iterable[PostId]: ...

    def vectors(self, ids: Iterable[PostId]) -> dict[PostId, Matrix]:
        """Copies of the vectors (``[dimensions]``) of those of ``ids`` that are here."""
        ...

    def upsert(self, ids: Sequence[PostId], units: Matrix) -> None:
        """Add or replace; no id twice."""
        ...

    def delete(self, ids: Iterable[PostId]) -> int:
        """Forget ``ids``; answer how many were here."""
        ...

    def search(self, queries: Matrix, k: int, exclude: Sequence[PostId | None]) -> list[Scored]:
        """The ``k`` most similar for each of ``queries`` (``[n, dimensions]``, of length one), without its own
        ``exclude``."""
        ...

    def bytes_used(self) -> int:
        """Memory, as far as it grows with the vectors."""
        ...


class Index(Protocol):
    """All vectors of a space, wherever they are: in this process, or on a server made for it.

    Called from threads, as any method may take as long as a search; ``len`` may be called on the event loop.
    """

    dimensions: int

    @property
    def kind(self) -> str:
        """In a word, how it searches."""
        ...

    def __len__(self) -> int: ...

    def bytes_used(self) -> int:
        """Memory of this process, as far as it grows with the vectors."""
        ...

    def ids(self) -> set[PostId]: ...

    def vectors(self, ids: Iterable[PostId]) -> dict[PostId, Matrix]:
        """Unit vectors (``[dimensions]``) of those of ``ids`` that are there."""
        ...

    def expect(self, vectors: int) -> None:
        """Say how many there will be. Raises IndexFull where they won't fit."""
        ...

    def upsert(self, ids: Sequence[PostId], vectors: Matrix) -> None:
        """Add ``vectors`` (``[n, dimensions]``), or replace those whose id is there. The last of equal ids counts."""
        ...

    def delete(self, ids: Iterable[PostId]) -> int:
        """Forget ``ids``; answer how many were there."""
        ...

    def search(self, vectors: Matrix, k: int, exclude: Sequence[PostId | None]) -> list[Scored]:
        """For each of ``vectors`` the ``k`` most similar ids with their cosine, without its own ``exclude``."""
        ...


def rank(entry: tuple[PostId, float]) -> tuple[float, str, bool]:
    """Sorts answers: best first, equal scores in order of the id's text."""
    return -entry[1], id_text(entry[0]), isinstance(entry[0], str)


def usable(vectors: Matrix) -> NDArray[np.bool_]:
    """For each row whether it has a direction: finite numbers, not all of them zero."""
    return cast("NDArray[np.bool_]", np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))


def unit_rows(vectors: Matrix, dimensions: int) -> Matrix:
    """``vectors`` at length one. Raises ValueError: another shape, or a vector without a direction."""
    if vectors.ndim != 2 or vectors.shape[1] != dimensions:
        raise ValueError(f"vectors: expected the shape [n, {dimensions}], got {list(vectors.shape)}")
    sound = usable(vectors)
    if not sound.all():
        raise ValueError(f"vectors: row {int(np.argmin(sound))} is zero or holds NaN or an infinity")
    # In float64: the squares of large and of tiny float32 numbers leave float32's range.
    wide = vectors.astype(np.float64)
    return cast("Matrix", (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32))
