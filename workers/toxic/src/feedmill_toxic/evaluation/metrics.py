"""Figures of merit, in numpy. Arrays are ``[rows]``; weights are the rows' shares, one for each where not said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Quality:
    """Precision and recall of yes-or-no answers."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of yes-or-no answers against the truth."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def of(cls, answers: Flags, truth: Flags) -> Confusion:
        counts = (answers & truth, answers & ~truth, ~answers & truth, ~answers & ~truth)
        return cls(*(int(flags.sum()) for flags in counts))

    @property
    def accuracy(self) -> float:
        right = self.true_positives + self.true_negatives
        return share(right, right + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        return share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def false_positive_rate(self) -> float:
        return share(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def f1(self) -> float:
        return Quality(self.precision, self.recall).f1


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram: rows, their mean score, and the share of them that is true."""

    rows: int
    score: float
    rate: float


def auc(scores: Floats, truth: Flags, weights: Floats | None = None) -> float:
    """Area under the ROC curve: the chance that a true row scores above a false one, ties counted as half.

    Weights change which false rows it is held against: those of another kind of toxicity are harder than clean ones.
    NaN where one of the classes is empty.
    """
    counted = np.ones(len(scores)) if weights is None else weights
    _, at = np.unique(scores, return_inverse=True)
    true, false = np.bincount(at, counted * truth), np.bincount(at, counted * ~truth)
    if not true.sum() or not false.sum():
        return float("nan")
    below = np.cumsum(false) - false / 2
    return float(true @ below / (true.sum() * false.sum()))


def average_precision(scores: Floats, truth: Flags) -> float:
    """Area under the precision-recall curve: the mean of precision over the true rows, ties taken together."""
    if not truth.any():
        return float("nan")
    precision, recall, _ = precision_recall(scores, truth)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def precision_recall(scores: Floats, truth: Flags) -> tuple[Floats, Floats, Floats]:
    """Precision and recall at each score that occurs, from the highest score down, and those scores."""
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    precision = hits[last] / (last + 1)
    recall = hits[last] / max(1, int(truth.sum()))
    return precision.astype(np.float64), recall.astype(np.float64), ordered[last].astype(np.float64)


def quality(answers: Flags, truth: Flags, weights: Floats) -> Quality:
    """Precision and recall with row weights; 0 where nothing was answered or nothing is true."""
    hits = weights[answers & truth].sum()
    return Quality(share(hits, weights[answers].sum()), share(hits, weights[truth].sum()))


def threshold_for_precision(scores: Floats, truth: Flags, wanted: float) -> tuple[float, Quality] | None:
    """The threshold with the most recall among those with at least the ``wanted`` precision; None where none has it."""
    precision, recall, thresholds = precision_recall(scores, truth)
    good = np.flatnonzero(precision >= wanted)
    if not len(good) or not truth.any():
        return None
    at = int(good[np.argmax(recall[good])])
    return float(thresholds[at]), Quality(float(precision[at]), float(recall[at]))


def reliability(scores: Floats, truth: Flags, weights: Floats | None = None, bins: int = 10) -> list[Bin]:
    """Rows by score in ``bins`` of the same width, from 0 to 1, empty ones left out."""
    weights = np.ones(len(scores)) if weights is None else weights
    places = np.minimum((scores * bins).astype(int), bins - 1)
    found = []
    for place in range(bins):
        rows = places == place
        if weights[rows].sum() > 0:
            score, rate = (float(np.average(values[rows], weights=weights[rows])) for values in (scores, truth))
            found.append(Bin(int(rows.sum()), score, rate))
    return found


def calibration_error(scores: Floats, truth: Flags, weights: Floats | None = None, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015): the mean gap between score and rate, weighted by rows."""
    weights = np.ones(len(scores)) if weights is None else weights
    places = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs(float((weights * (scores - truth))[places == place].sum())) for place in range(bins)]
    return share(sum(gaps), float(weights.sum()))


def interval(figure: Callable[[NDArray[np.int64]], float], rows: int, draws: int, seed: int = 7) -> tuple[float, float]:
    """95 % bootstrap interval (percentiles) of ``figure``, which takes the row indexes of a sample."""
    generator = np.random.default_rng(seed)
    values = [figure(generator.integers(0, rows, rows)) for _ in range(draws)] if rows else []
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def share(part: float, whole: float) -> float:
    """``part / whole``; 0 where there is nothing."""
    return float(part / whole) if whole else 0.0
