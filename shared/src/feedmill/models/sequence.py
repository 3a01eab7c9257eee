"""Classifiers with a classification layer: transformers' …ForSequenceClassification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from feedmill.errors import ModelError, Reject
from feedmill.models.labels import Kind, LabelPolicy, Scores, choose_kind, label_policy
from feedmill.models.resolve import ModelFiles
from feedmill.models.runtime import Inputs, Runtime, load_pretrained, make_runtime, max_positions, pad_token_id, run
from feedmill.models.scores import expect_scores, to_scores
from feedmill.models.tokens import TextTokenizer, Tokens, load_tokenizer
from feedmill.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class SequenceClassifier:
    """A loaded sequence classifier; see :class:`~feedmill.models.classifier.Classifier`."""

    labels: tuple[str, ...]
    kind: Kind
    model: str
    _tokenize: TextTokenizer
    _network: Any
    _runtime: Runtime

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return self._tokenize(texts)

    def classify(self, batch: Sequence[Tokens]) -> list[Scores | Reject]:
        if not batch:
            return []
        pad_id = pad_token_id(self._network.config)
        return to_scores(run(batch, pad_id, self._runtime, self._forward).numpy(), self.labels)

    def warm_up(self) -> None:
        expect_scores(self.classify(self.tokenize(["warm up"])), self.model)

    def _forward(self, inputs: Inputs) -> Tensor:
        logits: Tensor = self._network(input_ids=inputs.ids, attention_mask=inputs.mask).logits
        return logits.sigmoid() if self.kind == "multi" else logits.softmax(dim=-1)


def open_sequence(files: ModelFiles, settings: ModelSettings) -> tuple[SequenceClassifier, LabelPolicy]:
    """Load a sequence classifier and settle its labels. Raises ModelError or SettingsError."""
    from transformers import AutoModelForSequenceClassification

    runtime = make_runtime(settings)
    network = load_pretrained(AutoModelForSequenceClassification, files.path, runtime)
    config = network.config
    labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if config.problem_type == "regression":
        raise ModelError(f"model {files.uri}: a regression, whose output is no probability; expected a classifier")
    kind = choose_kind(config.problem_type, labels)
    policy = label_policy(labels, kind, settings)
    limit = min(settings.max_tokens, max_positions(config) or settings.max_tokens)
    tokenize = load_tokenizer(files.path, limit, settings.text_prefix or "", settings.max_windows)
    return SequenceClassifier(labels, kind, files.label, tokenize, network, runtime), policy
