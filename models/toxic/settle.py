"""After training: calibrated scores and thresholds, from held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data import LABELS
from feedmill_toxic.evaluation.metrics import Flags, Floats, best_threshold

# Any label of the six holds for this share of the original data set; the copies in use have three times as many.
NATURAL_RATE = 0.102
# The other labels name the kind of toxicity; few rows have them, and they decide alone from here on only.
ALONE = 0.75


@dataclass(frozen=True, slots=True)
class Calibration:
    """``sigmoid(slope * logit + shift)``, by label: Platt scaling (Platt 1999)."""

    slope: Floats
    shift: Floats

    def __call__(self, scores: Floats) -> Floats:
        return sigmoid(self.slope * logit(scores) + self.shift)


def natural_weights(truth: Floats) -> Floats:
    """Row weights under which the share of rows with any label is ``NATURAL_RATE``."""
    labelled = (np.nan_to_num(truth) > 0.5).any(axis=1)
    rate = float(labelled.mean()) if len(labelled) else 0.0
    if not 0 < rate < 1:
        return np.ones(len(truth))
    return np.where(labelled, NATURAL_RATE / rate, (1 - NATURAL_RATE) / (1 - rate))


def calibrate(scores: Floats, truth: Floats) -> Calibration:
    """Fit each label on held-out rows ``[rows, labels]``, weighted to the natural rate.

    Training rows have far more toxic ones than comments have; this takes the excess out of the scores. A label that
    the rows do not have stays as it is.
    """
    weights = natural_weights(truth)
    fits = [_platt(logit(scores[:, at]), truth[:, at], weights) for at in range(truth.shape[1])]
    return Calibration(np.array([slope for slope, _ in fits]), np.array([shift for _, shift in fits]))


def thresholds(scores: Floats, truth: Floats) -> dict[str, float]:
    """For each label the threshold with about the best F1 at the natural rate of toxic comments."""
    weights = natural_weights(truth)
    chosen = [best_threshold(scores[:, at], truth[:, at] > 0.5, weights) for at in range(len(LABELS))]
    return {name: chosen[at] if name == "toxic" else max(ALONE, chosen[at]) for at, name in enumerate(LABELS)}


def verdicts(scores: Floats, limits: dict[str, float]) -> Flags:
    return np.asarray((scores >= np.array([limits[label] for label in LABELS])).any(axis=1), dtype=np.bool_)


def logit(scores: Floats) -> Floats:
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), dtype=np.float64)


def sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-values)), dtype=np.float64)


def as_array(scores: Sequence[dict[str, float]]) -> Floats:
    return np.array([[score[label] for label in LABELS] for score in scores], dtype=np.float64).reshape(-1, len(LABELS))


def _platt(logits: Floats, truth: Floats, weights: Floats, ridge: float = 1.0) -> tuple[float, float]:
    """Weighted logistic regression of the truth on the logit, by Newton's method; ``ridge`` holds the slope near 1."""
    if not 0 < float(truth.mean()) < 1:
        return 1.0, 0.0
    fit = np.array([1.0, 0.0])
    inputs = np.stack([logits, np.ones_like(logits)], axis=1)
    for _ in range(50):
        chances = sigmoid(inputs @ fit)
        gradient = inputs.T @ (weights * (chances - truth)) + ridge * (fit - [1.0, 0.0]) * [1, 0]
        curvature = (inputs * (weights * chances * (1 - chances))[:, None]).T @ inputs + np.diag([ridge, 1e-6])
        step = np.linalg.solve(curvature, gradient)
        fit = fit - step
        if np.abs(step).max() < 1e-8:
            break
    return float(fit[0]), float(fit[1])
