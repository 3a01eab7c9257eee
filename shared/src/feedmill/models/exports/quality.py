"""What an export's numbers lose against the forward pass on torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


def largest_difference(found: Rows, expected: Rows) -> float:
    return float(np.abs(found - expected).max())


def vector_quality(found: Rows, expected: Rows, neighbours: int = 10) -> dict[str, float]:
    """Of vectors ``[texts, dimensions]``: cosine to the exact ones, and how many of the nearest texts stay the same.

    ``overlap@10``: for each text the share of its ten nearest by exact vectors that are among its ten nearest by these.
    """
    left, right = _unit(found), _unit(expected)
    cosine = (left * right).sum(axis=1)
    neighbours = min(neighbours, len(found) - 1)
    pairs = zip(_nearest(left, neighbours), _nearest(right, neighbours), strict=True)
    overlap = float(np.mean([len(set(a) & set(b)) / neighbours for a, b in pairs]))
    return {"cosine mean": float(cosine.mean()), "cosine least": float(cosine.min()), f"overlap@{neighbours}": overlap}


def score_quality(found: Rows, expected: Rows, was: list[bool], now: list[bool]) -> dict[str, float]:
    """Of scores ``[texts, labels]`` and verdicts: differences, and the share of verdicts that stay the same."""
    difference = np.abs(found - expected)
    return {
        "score difference mean": float(difference.mean()),
        "score difference largest": float(difference.max()),
        "toxic": float(sum(was)),
        "verdicts changed": float(sum(a != b for a, b in zip(was, now, strict=True))),
        "agreement": float(np.mean([a == b for a, b in zip(was, now, strict=True)])),
    }


def _unit(rows: Rows) -> Rows:
    unit: Rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _nearest(rows: Rows, count: int) -> list[list[int]]:
    similar = rows @ rows.T
    np.fill_diagonal(similar, -np.inf)
    nearest: list[list[int]] = np.argsort(-similar, axis=1, kind="stable")[:, :count].tolist()
    return nearest
