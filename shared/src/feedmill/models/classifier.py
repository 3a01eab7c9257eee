"""Toxicity classifiers behind one interface, chosen by the model's own config. No torch until one is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from feedmill.errors import ModelError, Reject
from feedmill.models.labels import LabelPolicy, Scores
from feedmill.models.resolve import ModelFiles, resolve
from feedmill.models.starting import import_torch_beside
from feedmill.models.tokens import Tokens
from feedmill.models.uri import ModelRef, parse
from feedmill.models.windows import classify_windows
from feedmill.settings import ModelSettings

logger = logging.getLogger(__name__)


class Classifier(Protocol):
    """Scores texts. Every call blocks; one thread may tokenize while ``lanes`` others classify."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def lanes(self) -> int: ...

    @property
    def batch_tokens(self) -> int:
        """Tokens of one batch at most, for the best of throughput and waiting."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids, in windows of the model's limit; one entry per text, in order."""
        ...

    def classify(self, batch: Sequence[Tokens]) -> list[Scores | Reject]:
        """Of the first windows alone: a score for each label, one entry per text, in order.

        A Reject where the model has no usable answer.
        """
        ...

    def warm_up(self) -> None:
        """One small forward pass. Raises ModelError where the model has no usable answer to a plain text."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedClassifier:
    """A classifier with what its labels mean and what results call it (``model``: name and short revision)."""

    classifier: Classifier
    policy: LabelPolicy
    model: str
    languages: frozenset[str] = frozenset()
    """ISO 639-1 codes of the languages that it can judge; empty: nobody has said."""

    def judge(self, batch: Sequence[Tokens]) -> list[Scores | Reject]:
        """Scores over all windows of each text, one entry per text, in order. Blocking."""
        return classify_windows(self.classifier, self.policy, batch)


def load_classifier(settings: ModelSettings, default_uri: str) -> LoadedClassifier:
    """Load the classifier that the settings name, or ``default_uri``. Blocking, seconds.

    Raises:
        ModelError: not found, refused, no classifier, or not exported (``FEEDMILL_BACKEND=onnx``).
        SettingsError: labels or thresholds that do not fit the model, a device that is not there.
    """
    ref = parse(settings.model or default_uri)
    loaded = _load_export(ref, settings) if settings.backend == "onnx" else _load_on_torch(ref, settings)
    policy = loaded.policy
    logger.info(
        "classifier %s: %s-label, toxic are %s, threshold %g, thresholds of their own %s",
        loaded.model, policy.kind, sorted(policy.toxic), policy.threshold, dict(policy.thresholds),
    )  # fmt: skip
    return loaded


def _load_export(ref: ModelRef, settings: ModelSettings) -> LoadedClassifier:
    from feedmill.models.exports.opening import open_exported_classifier

    classifier, policy, languages = open_exported_classifier(ref, settings)
    return LoadedClassifier(classifier, policy, classifier.model, languages)


def _load_on_torch(ref: ModelRef, settings: ModelSettings) -> LoadedClassifier:
    files = import_torch_beside(lambda: resolve(ref, settings.model_cache))
    classifier, policy = _open(files, settings)
    languages = frozenset(settings.languages or files.config.get("languages") or ())
    return LoadedClassifier(classifier, policy, files.label, languages)


def _open(files: ModelFiles, settings: ModelSettings) -> tuple[Classifier, LabelPolicy]:
    config = files.config
    if config.get("model_type") == "feedmill-head":
        from feedmill.models.head import open_head

        return open_head(files, settings)
    architectures = [str(name) for name in config.get("architectures") or ()]
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        from feedmill.models.sequence import open_sequence

        return open_sequence(files, settings)
    if config.get("is_encoder_decoder") or any(name.endswith("ForConditionalGeneration") for name in architectures):
        from feedmill.models.seq2seq import open_seq2seq

        return open_seq2seq(files, settings)
    raise ModelError(
        f"model {files.uri}: {', '.join(architectures) or 'its config.json'} is no classifier; expected an architecture"
        " …ForSequenceClassification or …ForConditionalGeneration, or a feedmill-head"
    )
