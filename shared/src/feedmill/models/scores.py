"""From the model's numbers to scores by label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feedmill.errors import ModelError, Reject
from feedmill.models.labels import Scores


def to_scores(probabilities: NDArray[np.float32], labels: Sequence[str]) -> list[Scores | Reject]:
    """Rows ``[texts, labels]`` of probabilities as scores; a Reject in place of a row that is not finite."""
    return [
        dict(zip(labels, row.tolist(), strict=True))
        if np.isfinite(row).all()
        else Reject("model_not_finite", "the model gave this text scores that are not finite numbers")
        for row in probabilities
    ]


def expect_scores(answers: Sequence[Scores | Reject], model: str) -> None:
    """Check a warm-up's answers. Raises ModelError where the model had none: it would have none for any message."""
    for answer in answers:
        if isinstance(answer, Reject):
            raise ModelError(f"model {model}: no usable answer to a plain text: {answer.detail}")
