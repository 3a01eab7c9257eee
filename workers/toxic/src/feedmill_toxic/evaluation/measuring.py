"""From rows and a model's answers to figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedmill.errors import Reject
from feedmill.models.classifier import LoadedClassifier
from feedmill.models.labels import LabelPolicy, Scores
from feedmill_toxic.evaluation.metrics import (
    Bin,
    Confusion,
    Flags,
    Floats,
    Quality,
    auc,
    average_precision,
    calibration_error,
    interval,
    reliability,
    threshold_for_precision,
)
from feedmill_toxic.evaluation.rows import Row
from feedmill_toxic.language import has_words, unsupported

_BLOCK = 512
TOXICITY = "toxicity"
"""The name of the one number, see ``toxicity_of``, among the labels."""
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows with the model's answers: ``scores`` by label, ``toxicity`` as one number, and the verdicts."""

    rows: Sequence[Row]
    scores: Sequence[Scores]
    toxicity: Floats
    verdicts: Flags
    foreign: int
    """Rows in a language that the model was not made for, which the worker does not call toxic."""

    @property
    def truth(self) -> Flags:
        return np.array([row.toxic for row in self.rows], dtype=np.bool_)

    def by_label(self, name: str) -> tuple[Floats, Flags]:
        """Scores and truth of one label that the rows know, or of ``toxicity``."""
        if name == TOXICITY:
            return self.toxicity, self.truth
        scores = np.array([score[name] for score in self.scores], dtype=np.float64)
        return scores, np.array([row.labels[name] for row in self.rows], dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One label, or ``toxicity``: ranking and calibration, with the threshold in use where it has one of its own."""

    name: str
    rows: int
    true_rows: int
    auc: float
    auc_interval: Interval
    average_precision: float
    calibration_error: float
    reliability: list[Bin]
    at_precision: dict[str, tuple[float, float, float]]
    """By wanted precision: threshold, precision and recall."""


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """The verdicts on the rows of one slice."""

    column: str
    value: str
    confusion: Confusion


@dataclass(frozen=True, slots=True)
class Mistake:
    """A row whose verdict is wrong."""

    text: str
    toxic: bool
    toxicity: float


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of an evaluation."""

    model: str
    data: str
    foreign: int
    """Rows in a language that the model was not made for: clean, as the worker has it."""
    confusion: Confusion
    intervals: dict[str, Interval]
    """95 % intervals of accuracy, precision, recall and F1."""
    labels: list[LabelFigures]
    slices: list[SliceFigures]
    mistakes: list[Mistake]
    """The most confident wrong verdicts first, false alarms and misses in turn."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to report: precisions to find thresholds for, mistakes to show of each kind, bootstrap draws."""

    precisions: Sequence[float] = (0.8, 0.9, 0.95)
    mistakes: int = 20
    draws: int = 300


def judge(loaded: LoadedClassifier, rows: Sequence[Row]) -> Judged:
    """Run the model over all rows, as the worker would. Blocking.

    Raises:
        Reject: the model has no usable answer to one of the texts.
    """
    scores: list[Scores] = []
    for start in range(0, len(rows), _BLOCK):
        tokens = loaded.classifier.tokenize([row.text for row in rows[start : start + _BLOCK]])
        for answer in loaded.judge(tokens):
            if isinstance(answer, Reject):
                raise answer
            scores.append(answer)
    worded = np.array([has_words(row.text) for row in rows], dtype=np.bool_)
    foreign = np.array([bool(unsupported(row.text, loaded.languages)) for row in rows], dtype=np.bool_) & worded
    verdicts = np.array([loaded.policy.is_toxic(score) for score in scores], dtype=np.bool_) & worded & ~foreign
    toxicity = np.array([toxicity_of(score, loaded.policy) for score in scores], dtype=np.float64) * worded
    return Judged(rows, scores, toxicity, verdicts, int(foreign.sum()))


def toxicity_of(scores: Scores, policy: LabelPolicy) -> float:
    """One number for "how toxic": the highest toxic label's score, or, of exclusive labels, the sum of them."""
    toxic = [scores[label] for label in policy.toxic]
    return min(1.0, sum(toxic)) if policy.kind == "single" else max(toxic)


def report(judged: Judged, model: str, data: str, wanted: Wanted) -> Report:
    """All figures."""
    truth, verdicts = judged.truth, judged.verdicts
    names = ("accuracy", "precision", "recall", "f1")

    def figure(name: str) -> Interval:
        return interval(
            lambda rows: float(getattr(Confusion.of(verdicts[rows], truth[rows]), name)), len(truth), wanted.draws
        )

    known = list(judged.rows[0].labels) if judged.rows else []
    labels = [_figures(name, *judged.by_label(name), wanted) for name in (TOXICITY, *known)]
    return Report(
        model,
        data,
        judged.foreign,
        Confusion.of(verdicts, truth),
        {name: figure(name) for name in names},
        labels,
        _slices(judged),
        _mistakes(judged, wanted.mistakes),
    )


def _figures(name: str, scores: Floats, truth: Flags, wanted: Wanted) -> LabelFigures:
    def sampled(rows: NDArray[np.int64]) -> float:
        return auc(scores[rows], truth[rows])

    found: dict[str, tuple[float, float, float]] = {}
    for precision in wanted.precisions:
        if best := threshold_for_precision(scores, truth, precision):
            found[f"{precision:g}"] = _at(best)
    return LabelFigures(
        name,
        len(truth),
        int(truth.sum()),
        auc(scores, truth),
        interval(sampled, len(truth), wanted.draws),
        average_precision(scores, truth),
        calibration_error(scores, truth),
        reliability(scores, truth),
        found,
    )


def _at(best: tuple[float, Quality]) -> tuple[float, float, float]:
    return best[0], best[1].precision, best[1].recall


def _slices(judged: Judged) -> list[SliceFigures]:
    truth = judged.truth
    figures = []
    for column in judged.rows[0].slices if judged.rows else ():
        values = np.array([row.slices[column] for row in judged.rows])
        for value in sorted(set(values.tolist())):
            rows = values == value
            figures.append(SliceFigures(column, value, Confusion.of(judged.verdicts[rows], truth[rows])))
    return figures


def _mistakes(judged: Judged, count: int) -> list[Mistake]:
    wrong = [
        Mistake(row.text, row.toxic, float(score))
        for row, score, verdict in zip(judged.rows, judged.toxicity, judged.verdicts, strict=True)
        if row.toxic != verdict
    ]
    alarms = sorted((one for one in wrong if not one.toxic), key=lambda one: -one.toxicity)[:count]
    misses = sorted((one for one in wrong if one.toxic), key=lambda one: one.toxicity)[:count]
    return [*alarms, *misses]
