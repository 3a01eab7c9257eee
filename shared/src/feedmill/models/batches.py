"""Cutting a batch into micro-batches for the forward pass."""

from __future__ import annotations

from collections.abc import Sequence


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
