"""Sentence encoders on torch: our own forward pass where it knows the architecture, else transformers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from feedmill.errors import ModelError
from feedmill.models.adapter import merge_adapter
from feedmill.models.bert import Bert
from feedmill.models.encoder import Forward, SentenceEncoder
from feedmill.models.packed import TOKEN_BUDGET, Packed, run_packed
from feedmill.models.pooling import Pooling, read_pooling
from feedmill.models.resolve import ModelFiles, read_json, space_name
from feedmill.models.runtime import (
    Inputs,
    Runtime,
    load_pretrained,
    make_runtime,
    max_positions,
    pad_token_id,
    run_padded,
)
from feedmill.models.shape import Shape, read_shape
from feedmill.models.tokens import load_tokenizer, lower_cased
from feedmill.models.weights import Shelf, map_weights
from feedmill.settings import ModelSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A low-rank adapter to merge into the encoder's weights; see :func:`~feedmill.models.adapter.merge_adapter`."""

    tensors: Mapping[str, Tensor]
    scale: float
    source: str


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded network with its pooling."""

    forward: Forward
    size: int
    positions: int | None
    """Tokens that it takes; None: any number."""
    batch_tokens: int


def open_encoder(
    files: ModelFiles,
    settings: ModelSettings,
    pooling: Pooling | None = None,
    max_windows: int = 1,
    adapter: Adapter | None = None,
) -> SentenceEncoder:
    """Load an encoder from its files.

    ``pooling`` in place of the model's own, windows and an adapter are for the classifiers that are built on an
    encoder. Raises ModelError or SettingsError.
    """
    runtime = make_runtime(settings)
    own_pooling = pooling or read_pooling(files.path)
    network = open_network(files, runtime, own_pooling, adapter)
    default_prefix = default_prompt(files.path)
    prefix = default_prefix if settings.text_prefix is None else settings.text_prefix
    own_limit = token_limit(files.path, network.positions)
    limit = settings.max_tokens if own_limit is None else min(settings.max_tokens, own_limit)
    dimensions = network.size * len(own_pooling.modes)
    # A prefix of the user's own moves every vector, so it makes a space of its own.
    space = space_name(files, dimensions, "" if prefix == default_prefix else prefix)
    logger.info(
        "encoder %s: %d dimensions, at most %d tokens, %d lanes, space %s",
        files.label, dimensions, limit, runtime.lanes, space,
    )  # fmt: skip
    tokenize = load_tokenizer(files.path, limit, prefix, max_windows)
    if wants_lower_case(files.path):
        tokenize = lower_cased(tokenize)
    return SentenceEncoder(dimensions, space, files, runtime.lanes, network.batch_tokens, tokenize, network.forward)


def open_network(files: ModelFiles, runtime: Runtime, pooling: Pooling, adapter: Adapter | None = None) -> Network:
    """The network in ``files``, its weights changed by ``adapter``. Raises ModelError."""
    shape = read_shape(files.config)
    if shape is None or runtime.device.type != "cpu":
        return _transformers(files, runtime, pooling, adapter)
    bert = load_bert(files, shape, adapter)

    def pooled(packed: Packed) -> Tensor:
        return pooling.pool_packed(bert(packed), packed)

    return Network(
        lambda batch: run_packed([text.ids for text in batch], shape.pad_id, pooled, runtime.lanes),
        shape.size,
        shape.positions,
        TOKEN_BUDGET,
    )


def load_bert(files: ModelFiles, shape: Shape, adapter: Adapter | None = None) -> Bert:
    """Our own forward pass, its weights changed by ``adapter``. Raises ModelError."""
    weights = map_weights(files.path, (shape.names.prefix,))
    if adapter is not None:
        merge_adapter(weights, adapter.tensors, adapter.scale, adapter.source)
    return Bert(shape, Shelf(weights, files.path))


def _transformers(files: ModelFiles, runtime: Runtime, pooling: Pooling, adapter: Adapter | None) -> Network:
    from transformers import AutoModel

    network = load_pretrained(AutoModel, files.path, runtime, may_lack=("pooler.",))
    if network.config.is_encoder_decoder:
        raise ModelError(f"model {files.uri}: {network.config.model_type} has a decoder; expected a sentence encoder")
    if adapter is not None:
        weights = dict(network.named_parameters())
        merge_adapter(weights, adapter.tensors, adapter.scale, adapter.source)
        network.load_state_dict(weights, strict=False)

    def pooled(inputs: Inputs) -> Tensor:
        states = network(input_ids=inputs.ids, attention_mask=inputs.mask).last_hidden_state
        return pooling(states, inputs.mask)

    pad_id = pad_token_id(network.config)
    return Network(
        lambda batch: run_padded(batch, pad_id, runtime, pooled).numpy(),
        int(network.config.hidden_size),
        max_positions(network.config),
        runtime.padded_token_budget,
    )


def default_prompt(path: Path) -> str:
    """The text that the model wants before each document, where its sentence-transformers config names one."""
    config = optional_json(path / "config_sentence_transformers.json")
    return str((config.get("prompts") or {}).get(config.get("default_prompt_name"), ""))


def token_limit(path: Path, positions: int | None) -> int | None:
    """The most tokens that the model takes, by its position embeddings and its own config; None: any number."""
    limits = (positions, optional_json(path / "sentence_bert_config.json").get("max_seq_length"))
    return min((int(tokens) for tokens in limits if tokens is not None), default=None)


def wants_lower_case(path: Path) -> bool:
    return bool(optional_json(path / "sentence_bert_config.json").get("do_lower_case"))


def optional_json(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``; empty where there is none."""
    return read_json(file) if file.is_file() else {}
