"""Classifiers that write their label: text-to-text models such as ViHateT5.

The label is not generated token by token. Each known label is scored by its likelihood as the decoder's output, all of
them in one decoder pass: the most likely one is what greedy generation would write, it comes with a probability, and
nothing but a known label can be the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feedmill.errors import Reject, SettingsError
from feedmill.models.labels import LabelPolicy, Scores, label_policy
from feedmill.models.resolve import ModelFiles
from feedmill.models.runtime import (
    Inputs,
    Runtime,
    load_pretrained,
    make_runtime,
    max_positions,
    pad_token_id,
    run_padded,
)
from feedmill.models.scores import expect_scores, to_scores
from feedmill.models.tokens import TextTokenizer, Tokens, load_tokenizer
from feedmill.settings import ModelSettings

# ViHateT5's tasks, each asked for by a prefix (https://huggingface.co/tarudesu/ViHateT5-base-HSD); the first is the
# one that is taken where no prefix is set. Its third, hate spans, is no classification.
_TASKS = {
    "hate-speech-detection: ": ("CLEAN", "OFFENSIVE", "HATE"),
    "toxic-speech-detection: ": ("NONE", "TOXIC"),
}
_FAMILY = "vihatet5"

# Below this, the known labels together are so unlikely that greedy generation would have written something else.
_LEAST_MASS = 0.05

# Positions behind a shorter label's end, as torch's own losses mark them.
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class LabelWriter:
    """A loaded text-to-text classifier; see :class:`~feedmill.models.classifier.Classifier`."""

    labels: tuple[str, ...]
    model: str
    lanes: int
    batch_tokens: int
    _targets: Tensor
    """Token ids of each label with its end, ``[labels, tokens]``, ``_IGNORED`` behind the end."""
    _tokenize: TextTokenizer
    _network: Any
    _runtime: Runtime

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return self._tokenize(texts)

    def classify(self, batch: Sequence[Tokens]) -> list[Scores | Reject]:
        if not batch:
            return []
        likelihoods = run_padded(batch, pad_token_id(self._network.config), self._runtime, self._forward)
        mass = likelihoods.exp().sum(dim=-1).numpy()
        answers = to_scores(likelihoods.softmax(dim=-1).numpy(), self.labels)
        return [self._checked(answer, float(known)) for answer, known in zip(answers, mass, strict=True)]

    def warm_up(self) -> None:
        expect_scores(self.classify(self.tokenize(["hello"])), self.model)

    def _checked(self, answer: Scores | Reject, mass: float) -> Scores | Reject:
        if isinstance(answer, Reject) or (np.isfinite(mass) and mass >= _LEAST_MASS):
            return answer
        return Reject(
            "model_no_label",
            f"the model gives its labels {', '.join(self.labels)} a probability of {mass:.2g} together: it would write"
            " something else. Its prefix (FEEDMILL_TEXT_PREFIX) or its labels do not fit it",
        )

    def _forward(self, inputs: Inputs) -> Tensor:
        """Log-likelihood of each label, ``[texts, labels]``."""
        from transformers.modeling_outputs import BaseModelOutput

        texts, count = len(inputs.ids), len(self.labels)
        encoded = self._network.get_encoder()(input_ids=inputs.ids, attention_mask=inputs.mask).last_hidden_state
        targets = self._targets.repeat(texts, 1)
        start = torch.full_like(targets[:, :1], self._network.config.decoder_start_token_id)
        logits = self._network(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.repeat_interleave(count, dim=0)),
            attention_mask=inputs.mask.repeat_interleave(count, dim=0),
            # Causal: what pads a shorter label behind its end changes nothing before it.
            decoder_input_ids=torch.cat([start, targets[:, :-1]], dim=1).masked_fill_(_ignored(start, targets), 0),
            use_cache=False,
        ).logits
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED, reduction="none"
        )
        return -losses.view(texts, count, -1).sum(dim=-1)


def open_seq2seq(files: ModelFiles, settings: ModelSettings) -> tuple[LabelWriter, LabelPolicy]:
    """Load a text-to-text classifier and settle its labels. Raises ModelError or SettingsError."""
    from transformers import AutoModelForSeq2SeqLM

    prefix, labels = choose_task(files, settings)
    policy = label_policy(labels, "single", settings)
    runtime = make_runtime(settings)
    network = load_pretrained(AutoModelForSeq2SeqLM, files.path, runtime)
    limit = min(settings.max_tokens, max_positions(network.config) or settings.max_tokens)
    targets = _label_targets(load_tokenizer(files.path, limit)(labels), network.config.eos_token_id)
    tokenize = load_tokenizer(files.path, limit, prefix, settings.max_windows)
    return LabelWriter(
        labels,
        files.label,
        runtime.lanes,
        runtime.padded_token_budget,
        targets.to(runtime.device),
        tokenize,
        network,
        runtime,
    ), policy


def choose_task(files: ModelFiles, settings: ModelSettings) -> tuple[str, tuple[str, ...]]:
    """The text before each comment, and the labels that the model may write.

    Raises:
        SettingsError: an unknown model, and the settings do not say its labels.
    """
    names = f"{files.name} {files.config.get('_name_or_path', '')}".casefold()
    own_prefix = next(iter(_TASKS)) if _FAMILY in names else ""
    prefix = own_prefix if settings.text_prefix is None else settings.text_prefix
    for task, labels in _TASKS.items():
        if prefix.strip() == task.strip():
            return task, labels
    if not (settings.toxic_labels and settings.clean_labels):
        raise SettingsError(
            f"FEEDMILL_TOXIC_LABELS and FEEDMILL_CLEAN_LABELS: expected both for {files.uri}, which writes its labels"
            f" as text and does not list them; or FEEDMILL_TEXT_PREFIX as one of {', '.join(map(repr, _TASKS))}"
        )
    return prefix, (*settings.clean_labels, *settings.toxic_labels)


def _label_targets(labels: Sequence[Tokens], end_id: int | None) -> Tensor:
    rows = [[*tokens.ids] if end_id in {None, tokens.ids[-1]} else [*tokens.ids, end_id] for tokens in labels]
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[_IGNORED] * (longest - len(row))] for row in rows], dtype=torch.int64)


def _ignored(start: Tensor, targets: Tensor) -> Tensor:
    """Which of the decoder's inputs (the start and all targets but the last) stand for nothing."""
    return torch.cat([torch.zeros_like(start, dtype=torch.bool), targets[:, :-1] == _IGNORED], dim=1)
