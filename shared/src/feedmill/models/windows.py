"""Long texts: judged window by window, the worst window counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from feedmill.errors import Reject
from feedmill.models.labels import LabelPolicy, Scores
from feedmill.models.tokens import Tokens

if TYPE_CHECKING:
    from feedmill.models.classifier import Classifier


def classify_windows(classifier: Classifier, policy: LabelPolicy, batch: Sequence[Tokens]) -> list[Scores | Reject]:
    """Scores of each text over all of its windows, one entry per text, in order."""
    windows = [[Tokens(ids, truncated=False) for ids in (text.ids, *text.further)] for text in batch]
    answers = iter(classifier.classify([window for text in windows for window in text]))
    return [worst([next(answers) for _ in text], policy) for text in windows]


def worst(answers: Sequence[Scores | Reject], policy: LabelPolicy) -> Scores | Reject:
    """One answer for a text from those for its windows; a Reject among them is the text's.

    Multi-label: each label's maximum. Single-label: the scores of the window with the largest share of toxic labels,
    whole, so that they still sum to one.
    """
    scores: list[Scores] = []
    for answer in answers:
        if isinstance(answer, Reject):
            return answer
        scores.append(answer)
    if len(scores) == 1:
        return scores[0]
    if policy.kind == "multi":
        return {label: max(score[label] for score in scores) for label in scores[0]}
    return max(scores, key=lambda score: (policy.is_toxic(score), sum(score[label] for label in policy.toxic)))
