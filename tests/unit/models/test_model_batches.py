"""Cutting by length: nothing lost, nothing twice, the budget kept."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from feedmill.models.batches import length_sorted_batches, packed_batches

lengths_of_texts = st.lists(st.integers(min_value=0, max_value=600), max_size=80)
budgets = st.integers(min_value=1, max_value=2048)


@given(lengths_of_texts, budgets)
def test_each_text_is_in_one_group(lengths: list[int], budget: int) -> None:
    groups = length_sorted_batches(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))


@given(lengths_of_texts, budgets)
def test_only_a_single_text_may_exceed_the_budget(lengths: list[int], budget: int) -> None:
    for group in length_sorted_batches(lengths, budget):
        assert len(group) == 1 or len(group) * max(lengths[index] for index in group) <= budget


@given(lengths_of_texts, budgets)
def test_groups_rise_in_length(lengths: list[int], budget: int) -> None:
    in_order = [lengths[index] for group in length_sorted_batches(lengths, budget) for index in group]
    assert in_order == sorted(in_order)


@given(lengths_of_texts, budgets)
def test_no_two_neighbouring_groups_would_fit_as_one(lengths: list[int], budget: int) -> None:
    groups = length_sorted_batches(lengths, budget)
    for shorter, longer in itertools.pairwise(groups):
        assert (len(shorter) + 1) * lengths[longer[0]] > budget


def test_no_texts_no_groups() -> None:
    assert length_sorted_batches([], 100) == []


@given(lengths_of_texts, budgets)
def test_packed_groups_hold_each_text_once_shortest_first(lengths: list[int], budget: int) -> None:
    order = [index for group in packed_batches(lengths, budget) for index in group]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths)


@given(lengths_of_texts, budgets)
def test_packed_groups_keep_the_budget_and_fill_it(lengths: list[int], budget: int) -> None:
    groups = packed_batches(lengths, budget)
    sizes = [sum(lengths[index] for index in group) for group in groups]
    assert all(len(group) == 1 or size <= budget for group, size in zip(groups, sizes, strict=True))
    for size, following in zip(sizes, groups[1:], strict=False):
        assert size + lengths[following[0]] > budget
