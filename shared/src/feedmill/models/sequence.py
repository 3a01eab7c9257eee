"""Classifiers with a classification layer: …ForSequenceClassification, on torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from feedmill.errors import ModelError
from feedmill.models.bert import Bert, Classified
from feedmill.models.encoder import Forward
from feedmill.models.labels import Kind, LabelPolicy, choose_kind, label_policy
from feedmill.models.packed import TOKEN_BUDGET, Packed, run_packed
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
from feedmill.models.scoring import ScoringClassifier
from feedmill.models.shape import Shape, read_shape
from feedmill.models.tokens import TextTokenizer, load_tokenizer
from feedmill.models.weights import Shelf, map_weights
from feedmill.settings import ModelSettings


def open_sequence(files: ModelFiles, settings: ModelSettings) -> tuple[ScoringClassifier, LabelPolicy]:
    """Load a sequence classifier and settle its labels. Raises ModelError or SettingsError."""
    runtime = make_runtime(settings)
    shape = read_shape(files.config)
    if shape is None or runtime.device.type != "cpu":
        return _transformers(files, settings, runtime)
    labels, kind = read_labels(files)
    policy = label_policy(labels, kind, settings)
    limit = min(settings.max_tokens, shape.positions)
    forward = _own(files, shape, runtime, labels, kind)
    tokenize = _tokenizer(files, settings, limit)
    return ScoringClassifier(labels, files.label, runtime.lanes, TOKEN_BUDGET, tokenize, forward), policy


def read_labels(files: ModelFiles) -> tuple[tuple[str, ...], Kind]:
    """Label names in the order of the outputs, and their kind, from config.json. Raises ModelError."""
    config = files.config
    names: Mapping[str, Any] = config.get("id2label") or {
        str(index): f"LABEL_{index}" for index in range(int(config.get("num_labels", 2)))
    }
    try:
        labels = tuple(str(names[str(index)]) for index in range(len(names)))
    except KeyError as error:
        raise ModelError(f"{files.path / 'config.json'}: id2label: no label {error}; expected 0, 1, …") from None
    if config.get("problem_type") == "regression":
        raise ModelError(f"model {files.uri}: a regression, whose output is no probability; expected a classifier")
    return labels, choose_kind(config.get("problem_type"), labels)


def probabilities(logits: Tensor, kind: Kind) -> Tensor:
    """``[texts, labels]``: each for itself (multi-label), or all together one (single-label)."""
    return logits.sigmoid() if kind == "multi" else logits.softmax(dim=-1)


def _own(files: ModelFiles, shape: Shape, runtime: Runtime, labels: tuple[str, ...], kind: Kind) -> Forward:
    shelf = Shelf(map_weights(files.path, (shape.names.prefix,)), files.path)
    bert, head = Bert(shape, shelf), Classified(shape, shelf, len(labels))

    def scored(packed: Packed) -> Tensor:
        return probabilities(head(bert(packed), packed), kind)

    return lambda batch: run_packed([text.ids for text in batch], shape.pad_id, scored, runtime.lanes)


def _transformers(
    files: ModelFiles, settings: ModelSettings, runtime: Runtime
) -> tuple[ScoringClassifier, LabelPolicy]:
    from transformers import AutoModelForSequenceClassification

    network = load_pretrained(AutoModelForSequenceClassification, files.path, runtime)
    config = network.config
    labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if config.problem_type == "regression":
        raise ModelError(f"model {files.uri}: a regression, whose output is no probability; expected a classifier")
    kind = choose_kind(config.problem_type, labels)
    policy = label_policy(labels, kind, settings)
    limit = min(settings.max_tokens, max_positions(config) or settings.max_tokens)
    pad_id = pad_token_id(config)

    def scored(inputs: Inputs) -> Tensor:
        return probabilities(network(input_ids=inputs.ids, attention_mask=inputs.mask).logits, kind)

    def forward(batch: Any) -> Any:
        return run_padded(batch, pad_id, runtime, scored).numpy()

    tokenize = _tokenizer(files, settings, limit)
    budget = runtime.padded_token_budget
    return ScoringClassifier(labels, files.label, runtime.lanes, budget, tokenize, forward), policy


def _tokenizer(files: ModelFiles, settings: ModelSettings, limit: int) -> TextTokenizer:
    return load_tokenizer(files.path, limit, settings.text_prefix or "", settings.max_windows)
