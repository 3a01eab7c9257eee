"""Classifiers whose network gives a probability for each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feedmill.errors import Reject
from feedmill.models.encoder import Forward
from feedmill.models.labels import Scores
from feedmill.models.scores import expect_scores, to_scores
from feedmill.models.tokens import TextTokenizer, Tokens


@dataclass(frozen=True, slots=True)
class ScoringClassifier:
    """See :class:`~feedmill.models.classifier.Classifier`."""

    labels: tuple[str, ...]
    model: str
    lanes: int
    batch_tokens: int
    _tokenize: TextTokenizer
    _probabilities: Forward
    """Rows ``[texts, labels]``."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return self._tokenize(texts)

    def classify(self, batch: Sequence[Tokens]) -> list[Scores | Reject]:
        return to_scores(self._probabilities(batch), self.labels) if batch else []

    def warm_up(self) -> None:
        expect_scores(self.classify(self.tokenize(["warm up"])), self.model)
