"""After training: calibrated scores and thresholds, from held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data import LABELS
from feedmill_toxic.evaluation.metrics import Flags, Floats, quality

# Any label of the six holds for this share of the original data set; the copies in use have three times as many.
NATURAL_RATE = 0.102
# Scores are shares where this many comments are toxic. At the natural rate of Wikipedia's talk pages a score of 0.5
# would ask for much: a rude comment on a livelier site would stay below. ``at_rate`` takes scores to another rate.
REFERENCE_RATE = 0.25
# ``toxic`` decides from the highest of these values that is about as good as the best on held-out rows, where chance
# alone moves F1 by as much: in doubt, no alarm. Just above lie many harmless sentences about groups of people.
_NEAR_HALF = tuple(step / 100 for step in range(40, 61))
_F1_SLACK = 0.015
# The other labels name the kind of toxicity; they decide alone where this share of what they flag is toxic.
ALONE_PRECISION = 0.9
# But for ``obscene``, which is about words and not about what is done with them: "fuck yeah, we won" is obscene.
NEVER = 1.0
_ALONE = tuple(step / 100 for step in range(50, 96))


@dataclass(frozen=True, slots=True)
class Calibration:
    """``sigmoid(slope * logit + shift)``, by label: Platt scaling (Platt 1999)."""

    slope: Floats
    shift: Floats

    def __call__(self, scores: Floats) -> Floats:
        return sigmoid(self.slope * logit(scores) + self.shift)


def weights_at(truth: Floats, rate: float) -> Floats:
    """Row weights under which the share of rows with any label is ``rate``."""
    labelled = np.asarray((np.nan_to_num(truth) > 0.5).any(axis=1), dtype=np.bool_)
    found = float(labelled.mean()) if len(labelled) else 0.0
    if not 0 < found < 1:
        return np.ones(len(truth))
    return np.where(labelled, rate / found, (1 - rate) / (1 - found))


def at_rate(scores: Floats, rate: float) -> Floats:
    """Scores, which are shares at ``REFERENCE_RATE``, as shares where ``rate`` of comments is toxic (Elkan 2001)."""
    return sigmoid(logit(scores) + float(logit(np.array(rate)) - logit(np.array(REFERENCE_RATE))))


def calibrate(scores: Floats, truth: Floats) -> Calibration:
    """Fit each label on held-out rows ``[rows, labels]``, weighted to the reference rate.

    Training rows have far more toxic ones than comments have; this takes the excess out of the scores. A label that
    the rows do not have stays as it is.
    """
    weights = weights_at(truth, REFERENCE_RATE)
    fits = [_platt(logit(scores[:, at]), truth[:, at], weights) for at in range(truth.shape[1])]
    return Calibration(np.array([slope for slope, _ in fits]), np.array([shift for _, shift in fits]))


def thresholds(scores: Floats, truth: Floats) -> dict[str, float]:
    """For ``toxic`` the highest threshold around 0.5 with about the best F1; for the others the lowest, from 0.5 on,
    of whose flagged rows ``ALONE_PRECISION`` are toxic; none for ``obscene``. All at the reference rate."""
    weights = weights_at(truth, REFERENCE_RATE)
    toxic = np.asarray((truth > 0.5).any(axis=1), dtype=np.bool_)
    alone = {label: _alone(scores[:, at], toxic, weights) for at, label in enumerate(LABELS)}
    return alone | {"toxic": _near_half(scores[:, 0], truth[:, 0] > 0.5, weights), "obscene": NEVER}


def _near_half(scores: Floats, truth: Flags, weights: Floats) -> float:
    merits = {one: quality(scores >= one, truth, weights).f1 for one in _NEAR_HALF}
    return max(one for one, merit in merits.items() if merit >= max(merits.values()) - _F1_SLACK)


def _alone(scores: Floats, toxic: Flags, weights: Floats) -> float:
    good = (one for one in _ALONE if quality(scores >= one, toxic, weights).precision >= ALONE_PRECISION)
    return next(good, _ALONE[-1])


def verdicts(scores: Floats, limits: dict[str, float]) -> Flags:
    return np.asarray((scores >= np.array([limits[label] for label in LABELS])).any(axis=1), dtype=np.bool_)


def logit(scores: Floats) -> Floats:
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), dtype=np.float64)


def sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -500, 500))), dtype=np.float64)


def as_array(scores: Sequence[dict[str, float]]) -> Floats:
    return np.array([[score[label] for label in LABELS] for score in scores], dtype=np.float64).reshape(-1, len(LABELS))


def _platt(logits: Floats, truth: Floats, weights: Floats, ridge: float = 1.0) -> tuple[float, float]:
    """Weighted logistic regression of the truth on the logit, by Newton's method; ``ridge`` holds the slope near 1.

    A step that would make the loss worse is halved: far from the best fit Newton's steps overshoot, and diverge.
    """
    if not 0 < float(truth.mean()) < 1:
        return 1.0, 0.0
    inputs = np.stack([logits, np.ones_like(logits)], axis=1)

    def loss(fit: Floats) -> float:
        values = inputs @ fit
        return float(weights @ (np.logaddexp(0, values) - truth * values) + ridge / 2 * (fit[0] - 1) ** 2)

    fit = np.array([1.0, 0.0])
    for _ in range(100):
        chances = sigmoid(inputs @ fit)
        gradient = inputs.T @ (weights * (chances - truth)) + ridge * (fit - [1.0, 0.0]) * [1, 0]
        curvature = (inputs * (weights * chances * (1 - chances))[:, None]).T @ inputs + np.diag([ridge, 1e-6])
        step = np.linalg.solve(curvature, gradient)
        while np.abs(step).max() > 1e-8 and loss(fit - step) > loss(fit):
            step = step / 2
        fit = fit - step
        if np.abs(step).max() <= 1e-8:
            break
    return float(fit[0]), float(fit[1])
