"""Sentence encoders: texts to vectors."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from feedmill.errors import ModelError
from feedmill.models.adapter import merge_adapter
from feedmill.models.pooling import Pooling, read_pooling
from feedmill.models.resolve import ModelFiles, read_json, resolve, space_name
from feedmill.models.runtime import Inputs, Runtime, load_pretrained, make_runtime, max_positions, pad_token_id, run
from feedmill.models.tokens import TextTokenizer, Tokens, load_tokenizer, lower_cased
from feedmill.models.uri import parse
from feedmill.settings import ModelSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """A loaded encoder. Blocking; one thread may tokenize while another encodes."""

    dimensions: int
    space: str
    """The embedding space's name: ``[a-z0-9-]{1,60}``, other for each model and revision."""
    files: ModelFiles
    _tokenize: TextTokenizer
    _network: Any
    _pooling: Pooling
    _runtime: Runtime

    @property
    def model(self) -> str:
        """The model's name and short revision, for results."""
        return self.files.label

    @property
    def uri(self) -> str:
        return self.files.uri

    @property
    def revision(self) -> str:
        """The hub's commit, or the hash of the model's files."""
        return self.files.revision

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids, cut to the model's limit; one entry per text, in order."""
        return self._tokenize(texts)

    def encode(self, batch: Sequence[Tokens]) -> NDArray[np.float32]:
        """Vectors ``[texts, dimensions]`` in the batch's order.

        Raises:
            ModelError: a vector with values that are not finite, which would poison every search it is part of.
        """
        if not batch:
            return np.empty((0, self.dimensions), dtype=np.float32)
        pad_id = pad_token_id(self._network.config)
        vectors: NDArray[np.float32] = run(batch, pad_id, self._runtime, self._forward).numpy()
        if not np.isfinite(vectors).all():
            raise ModelError(f"{self.model}: gave a vector with values that are not finite")
        return vectors

    def adapt(self, tensors: Mapping[str, Tensor], scale: float, source: str) -> None:
        """Merge an adapter into the weights; see :func:`~feedmill.models.adapter.merge_adapter`."""
        merge_adapter(self._network, tensors, scale, source)

    def warm_up(self) -> None:
        """One small forward pass: the first one is slow, and fails here rather than on a message."""
        self.encode(self.tokenize(["warm up"]))

    def _forward(self, inputs: Inputs) -> Tensor:
        states = self._network(input_ids=inputs.ids, attention_mask=inputs.mask).last_hidden_state
        return self._pooling(states, inputs.mask)


def load_encoder(settings: ModelSettings, default_uri: str) -> SentenceEncoder:
    """Load the encoder that the settings name, or ``default_uri``. Blocking, seconds.

    Raises:
        ModelError: not found, refused, or not a sentence encoder.
        SettingsError: a device that is not there.
    """
    files = resolve(parse(settings.model or default_uri), settings.model_cache)
    return open_encoder(files, settings)


def open_encoder(
    files: ModelFiles, settings: ModelSettings, pooling: Pooling | None = None, max_windows: int = 1
) -> SentenceEncoder:
    """Load an encoder from its files.

    ``pooling`` in place of the model's own, and windows, are for the classifiers that are built on an encoder.
    """
    from transformers import AutoModel

    runtime = make_runtime(settings)
    own_pooling = pooling or read_pooling(files.path)
    network = load_pretrained(AutoModel, files.path, runtime, may_lack=("pooler.",))
    if network.config.is_encoder_decoder:
        raise ModelError(f"model {files.uri}: {network.config.model_type} has a decoder; expected a sentence encoder")
    default_prefix = _default_prompt(files.path)
    prefix = default_prefix if settings.text_prefix is None else settings.text_prefix
    own_config = _optional_json(files.path / "sentence_bert_config.json")
    limits = (settings.max_tokens, max_positions(network.config), own_config.get("max_seq_length"))
    limit = min(int(tokens) for tokens in limits if tokens is not None)
    dimensions = int(network.config.hidden_size) * len(own_pooling.modes)
    # A prefix of the user's own moves every vector, so it makes a space of its own.
    space = space_name(files, dimensions, "" if prefix == default_prefix else prefix)
    logger.info("encoder %s: %d dimensions, at most %d tokens, space %s", files.label, dimensions, limit, space)
    tokenize = load_tokenizer(files.path, limit, prefix, max_windows)
    if own_config.get("do_lower_case"):
        tokenize = lower_cased(tokenize)
    return SentenceEncoder(dimensions, space, files, tokenize, network, own_pooling, runtime)


def _default_prompt(path: Path) -> str:
    """The text that the model wants before each document, where its sentence-transformers config names one."""
    config = _optional_json(path / "config_sentence_transformers.json")
    return str((config.get("prompts") or {}).get(config.get("default_prompt_name"), ""))


def _optional_json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
