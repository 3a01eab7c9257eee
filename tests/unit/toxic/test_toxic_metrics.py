"""Figures of merit against values worked out by hand, and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill_toxic.evaluation.metrics import (
    Confusion,
    auc,
    average_precision,
    calibration_error,
    interval,
    reliability,
    threshold_for_precision,
)

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.1])
TRUTH = np.array([True, True, False, True, False, False])


def test_ranking() -> None:
    assert auc(SCORES, TRUTH) == pytest.approx(8 / 9)
    assert average_precision(SCORES, TRUTH) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert math.isnan(auc(SCORES, np.ones(6, dtype=bool)))
    assert math.isnan(average_precision(SCORES, np.zeros(6, dtype=bool)))


def test_a_row_that_weighs_twice_counts_as_two() -> None:
    weights = np.array([1.0, 2, 3, 1, 1, 1])
    rows = np.repeat(np.arange(6), weights.astype(int))
    assert auc(SCORES, TRUTH, weights) == pytest.approx(auc(SCORES[rows], TRUTH[rows]))
    assert auc(SCORES, TRUTH, weights) != pytest.approx(auc(SCORES, TRUTH))


def test_ties_count_as_half() -> None:
    assert auc(np.array([0.5, 0.5]), np.array([True, False])) == 0.5
    assert average_precision(np.array([0.5, 0.5]), np.array([True, False])) == 0.5


def test_confusion() -> None:
    counts = Confusion.of(SCORES >= 0.65, TRUTH)
    assert counts == Confusion(2, 1, 1, 2)
    assert (counts.accuracy, counts.precision, counts.recall) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (counts.f1, counts.false_positive_rate) == pytest.approx((2 / 3, 1 / 3))
    assert Confusion(0, 0, 0, 0).accuracy == 0


def test_thresholds() -> None:
    threshold, result = threshold_for_precision(SCORES, TRUTH, 0.9) or (0.0, None)
    assert threshold == 0.8
    assert result is not None
    assert (result.precision, result.recall) == pytest.approx((1, 2 / 3))
    assert threshold_for_precision(-SCORES, TRUTH, 0.9) is None


def test_calibration() -> None:
    scores = np.array([0.05, 0.05, 0.95, 0.95])
    truth = np.array([False, False, True, False])
    first, last = reliability(scores, truth)
    assert (first.rows, first.score, first.rate) == (2, pytest.approx(0.05), 0)
    assert (last.rows, last.score, last.rate) == (2, pytest.approx(0.95), 0.5)
    assert calibration_error(scores, truth) == pytest.approx((0.05 + 0.45) / 2)
    weights = np.array([1, 1, 1, 0])
    assert calibration_error(scores, truth, weights) == pytest.approx(0.05)


def test_intervals_hold_the_figure_and_are_the_same_each_time() -> None:
    def mean(rows: np.ndarray) -> float:
        return float(SCORES[rows].mean())

    low, high = interval(mean, len(SCORES), 200)
    assert low < SCORES.mean() < high
    assert interval(mean, len(SCORES), 200) == (low, high)
    assert math.isnan(interval(mean, 0, 200)[0])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40))
def test_auc_of_the_opposite_is_the_rest(rows: list[tuple[float, bool]]) -> None:
    scores, truth = np.array([score for score, _ in rows]), np.array([true for _, true in rows])
    if truth.any() and not truth.all():
        assert auc(scores, truth) + auc(scores, ~truth) == pytest.approx(1)
