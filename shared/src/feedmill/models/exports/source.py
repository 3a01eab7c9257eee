"""What is exported: a model's own forward pass, what is built on it, and the same on torch to check against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedmill.errors import ModelError, Reject
from feedmill.models.bert import Bert, Classified
from feedmill.models.exports.graph import Finish, Graph, affine, classified, pooled, probabilities
from feedmill.models.exports.record import TOKENIZER, Task
from feedmill.models.head import head_weights, open_head, read_config, read_tensors, resolve_encoder
from feedmill.models.labels import LabelPolicy
from feedmill.models.pooling import Pooling, read_pooling
from feedmill.models.resolve import ModelFiles, resolve
from feedmill.models.scoring import ScoringClassifier
from feedmill.models.sequence import open_sequence, read_labels
from feedmill.models.shape import Shape, read_shape
from feedmill.models.tokens import Tokens
from feedmill.models.torch_encoder import (
    Adapter,
    default_prompt,
    load_bert,
    open_encoder,
    token_limit,
    wants_lower_case,
)
from feedmill.models.uri import ModelRef
from feedmill.models.weights import Shelf, map_weights
from feedmill.settings import ModelSettings

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Source:
    """A model to export. ``record`` holds what its export.json says of it besides."""

    files: ModelFiles
    tokenizer: Path
    bert: Bert
    finish: Finish
    tokenize: Callable[[Sequence[str]], list[Tokens]]
    forward: Callable[[Sequence[Tokens]], Rows]
    """On torch: rows ``[texts, outputs]``."""
    record: dict[str, Any]
    policy: LabelPolicy | None = field(default=None)


def open_source(task: Task, ref: ModelRef, settings: ModelSettings) -> Source:
    """Load what is to be exported. Raises ModelError where it is none of the models that can be."""
    files = resolve(ref, settings.model_cache)
    if task == "encode":
        return _encoder(files, settings)
    if files.config.get("model_type") == "feedmill-head":
        return _head(files, settings)
    return _sequence(files, settings)


def _encoder(files: ModelFiles, settings: ModelSettings) -> Source:
    shape = _shape(files)
    pooling = read_pooling(files.path)
    bert = load_bert(files, shape)
    on_torch = open_encoder(files, settings)

    def finish(graph: Graph, states: str) -> str:
        return pooled(graph, states, pooling)

    record = _common(shape, token_limit(files.path, shape.positions)) | {
        "pooling": pooling.modes,
        "outputs": on_torch.dimensions,
        "prefix": default_prompt(files.path),
        "lower_case": wants_lower_case(files.path),
    }
    return Source(files, _tokenizer(files), bert, finish, on_torch.tokenize, on_torch.encode, record)


def _head(files: ModelFiles, settings: ModelSettings) -> Source:
    config = read_config(files.path)
    encoder = resolve_encoder(files, config, settings.model_cache)
    shape = _shape(encoder)
    path = files.path / "head.safetensors"
    tensors = read_tensors(path)
    head = head_weights(tensors, path, shape.size * len(config.pooling), len(config.labels))
    bert = load_bert(encoder, shape, Adapter(tensors, config.adapter_scale, str(path)))
    on_torch, policy = open_head(files, settings)

    def finish(graph: Graph, states: str) -> str:
        features = pooled(graph, states, Pooling(config.pooling, normalise=False))
        return probabilities(graph, affine(graph, "head", features, (head.output_weight, head.output_bias)), "multi")

    limit = token_limit(encoder.path, shape.positions)
    record = _common(shape, min(config.max_tokens, limit or config.max_tokens)) | {
        "pooling": config.pooling,
        "outputs": len(config.labels),
        "labels": config.labels,
        "kind": "multi",
        "thresholds": config.thresholds,
        "languages": config.languages,
        "normalise": config.normalise,
        "prefix": default_prompt(encoder.path),
        "lower_case": wants_lower_case(encoder.path),
    }
    return Source(files, _tokenizer(encoder), bert, finish, on_torch.tokenize, _scores(on_torch), record, policy)


def _sequence(files: ModelFiles, settings: ModelSettings) -> Source:
    shape = _shape(files)
    architectures = [str(name) for name in files.config.get("architectures") or ()]
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise ModelError(
            f"model {files.uri}: {', '.join(architectures) or 'its config.json'} is no classifier that can be exported;"
            " expected …ForSequenceClassification or a feedmill-head"
        )
    labels, kind = read_labels(files)
    bert = load_bert(files, shape)
    head = Classified(shape, Shelf(map_weights(files.path, (shape.names.prefix,)), files.path), len(labels))
    on_torch, policy = open_sequence(files, settings)

    def finish(graph: Graph, states: str) -> str:
        return classified(graph, states, head, kind, shape.family)

    record = _common(shape, shape.positions) | {
        "outputs": len(labels),
        "labels": labels,
        "kind": kind,
        "languages": tuple(files.config.get("languages") or ()),
    }
    return Source(files, _tokenizer(files), bert, finish, on_torch.tokenize, _scores(on_torch), record, policy)


def _shape(files: ModelFiles) -> Shape:
    shape = read_shape(files.config)
    if shape is None:
        raise ModelError(
            f"model {files.uri}: {files.config.get('model_type')} can't be exported; expected bert, roberta,"
            " xlm-roberta, camembert or distilbert with absolute positions. Others run with FEEDMILL_BACKEND=torch"
        )
    return shape


def _common(shape: Shape, limit: int | None) -> dict[str, Any]:
    return {"pad_id": shape.pad_id, "first_position": shape.first_position, "max_tokens": limit or shape.positions}


def _tokenizer(files: ModelFiles) -> Path:
    if not (files.path / TOKENIZER).is_file():
        raise ModelError(
            f"model {files.uri}: no {TOKENIZER}, and without transformers there is no other tokenizer. Make it with"
            " AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    return files.path / TOKENIZER


def _scores(classifier: ScoringClassifier) -> Callable[[Sequence[Tokens]], Rows]:
    def forward(batch: Sequence[Tokens]) -> Rows:
        rows = []
        for answer in classifier.classify(batch):
            if isinstance(answer, Reject):
                raise ModelError(f"{classifier.model}: {answer.detail}")
            rows.append([answer[label] for label in classifier.labels])
        return np.array(rows, dtype=np.float32)

    return forward
