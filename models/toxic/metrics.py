"""Figures of merit, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Quality:
    """Precision, recall and F1 of yes-or-no answers."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def any_label(values: Floats | Flags) -> Flags:
    """Rows ``[rows, labels]`` with at least one label (NaN counts as none)."""
    return np.asarray((np.nan_to_num(values.astype(np.float64)) > 0.5).any(axis=1), dtype=np.bool_)


def auc(scores: Floats, truth: Flags) -> float:
    """Area under the ROC curve: the chance that a true row scores above a false one, ties counted as half.

    From rank sums (Mann-Whitney U); NaN where one of the classes is empty.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def quality(answers: Flags, truth: Flags, weights: Floats) -> Quality:
    """Precision and recall with row weights; 0 where nothing was answered or nothing is true."""
    hits = weights[answers & truth].sum()
    return Quality(_share(hits, weights[answers].sum()), _share(hits, weights[truth].sum()))


def best_threshold(scores: Floats, truth: Flags, weights: Floats, slack: float = 0.005) -> float:
    """The highest threshold, of 0.05 to 0.95, whose weighted F1 is within ``slack`` of the best.

    F1 is flat around its best: the highest of thresholds that are about as good gives the fewest false alarms.
    0.5 where nothing is true.
    """
    if not truth.any():
        return 0.5
    candidates = [step / 100 for step in range(5, 96)]
    merits = [quality(scores >= threshold, truth, weights).f1 for threshold in candidates]
    good = [threshold for threshold, merit in zip(candidates, merits, strict=True) if merit >= max(merits) - slack]
    return max(good)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
