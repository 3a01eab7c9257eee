"""Cutting a batch into micro-batches for the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
from numpy.typing import NDArray


def length_sorted_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group texts of similar length, so that little of the forward pass is spent on padding.

    Args:
        lengths: tokens of each text.
        budget: padded tokens (texts times the longest of them) of one group at most; a longer text goes alone.

    Returns:
        Groups of indexes into ``lengths``, shortest texts first; together they hold each index once.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Ascending order: this text is the longest so far, so it sets the padded length of the group it joins.
        if groups and (len(groups[-1]) + 1) * lengths[index] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def packed_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group texts for a forward pass that needs no padding: up to ``budget`` tokens together, a longer text alone.

    Returns:
        Groups of indexes into ``lengths``, shortest texts first; together they hold each index once.
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        tokens += lengths[index]
        if groups and tokens <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
            tokens = lengths[index]
    return groups


def run_portions(
    rows: Sequence[Sequence[int]],
    budget: int,
    forward: Callable[[Sequence[Sequence[int]]], NDArray[np.float32]],
    lanes: int = 1,
    cut: Callable[[Sequence[int], int], list[list[int]]] = packed_batches,
) -> NDArray[np.float32]:
    """``forward`` over texts in portions of ``budget`` tokens; its rows ``[texts, …]`` in the texts' order.

    ``rows`` holds one or more. A worker gives each lane a batch of ``budget`` tokens. Whoever brings more at once (a
    backfill, an evaluation) has its portions run ``lanes`` at a time.
    """
    lengths = [len(row) for row in rows]
    portions = cut(lengths, budget)

    def one(indexes: list[int]) -> NDArray[np.float32]:
        return forward([rows[index] for index in indexes])

    if len(portions) > 1 and lanes > 1 and sum(lengths) > budget:
        with ThreadPoolExecutor(lanes, thread_name_prefix="portion") as executor:
            parts = list(executor.map(one, portions))
    else:
        parts = [one(portion) for portion in portions]
    found = np.concatenate(parts)
    ordered = np.empty_like(found)
    ordered[list(chain.from_iterable(portions))] = found
    return ordered
