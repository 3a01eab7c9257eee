"""Feedmill's own classifiers: a linear head on a sentence encoder, which an adapter may change.

A head is a folder with ``config.json`` (``HeadConfig``) and ``head.safetensors``: ``output.weight [labels, d]``,
``output.bias [labels]``, and the adapter's pairs (feedmill.models.adapter), in half or single precision. The adapter is
merged into the encoder's weights, so that the whole costs what the encoder costs. Scores are independent of each other
(multi-label).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from feedmill.errors import ModelError
from feedmill.models.labels import LabelPolicy, label_policy
from feedmill.models.normalise import normalise
from feedmill.models.pooling import MODES, Pooling
from feedmill.models.resolve import ModelFiles, read_json, resolve
from feedmill.models.scoring import ScoringClassifier
from feedmill.models.tokens import Tokens
from feedmill.models.torch_encoder import Adapter, open_encoder
from feedmill.models.uri import parse
from feedmill.settings import ModelSettings


class HeadConfig(BaseModel):
    """A head's config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: str = Field(pattern="^feedmill-head$")
    encoder: str = Field(description="URI of the encoder")
    encoder_revision: str = Field(description="revision of the encoder that the head was trained on")
    pooling: tuple[str, ...] = Field(min_length=1, description="poolings of the encoder's states, concatenated")
    max_tokens: int = Field(ge=8, description="the texts' length in training")
    adapter_scale: float = Field(1.0, gt=0, description="factor of the adapter's products: alpha / rank")
    normalise: bool = Field(False, description="whether texts were normalised in training (feedmill.models.normalise)")
    languages: tuple[str, ...] = Field((), description="ISO 639-1 codes of the languages that it was trained for")
    labels: tuple[str, ...] = Field(min_length=1)
    thresholds: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """The head's parameters; see the module's docstring for shapes."""

    output_weight: Tensor
    output_bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Probabilities ``[texts, labels]`` from features ``[texts, d]``."""
        return torch.nn.functional.linear(features, self.output_weight, self.output_bias).sigmoid()


def open_head(files: ModelFiles, settings: ModelSettings) -> tuple[ScoringClassifier, LabelPolicy]:
    """Load a head and its encoder. Raises ModelError or SettingsError."""
    config = read_config(files.path)
    policy = label_policy(config.labels, "multi", settings, config.thresholds)
    encoder_files = resolve_encoder(files, config, settings.model_cache)
    limited = settings.model_copy(update={"max_tokens": min(settings.max_tokens, config.max_tokens)})
    path = files.path / "head.safetensors"
    tensors = read_tensors(path)
    encoder = open_encoder(
        encoder_files,
        limited,
        Pooling(config.pooling, normalise=False),
        settings.max_windows,
        Adapter(tensors, config.adapter_scale, str(path)),
    )
    weights = head_weights(tensors, path, encoder.dimensions, len(config.labels))

    def probabilities(batch: Sequence[Tokens]) -> NDArray[np.float32]:
        with torch.inference_mode():
            scores: NDArray[np.float32] = weights(torch.from_numpy(encoder.encode(batch))).numpy()
        return scores

    def tokenize(texts: Sequence[str]) -> list[Tokens]:
        return encoder.tokenize([normalise(text) for text in texts] if config.normalise else texts)

    return ScoringClassifier(
        config.labels, files.label, encoder.lanes, encoder.batch_tokens, tokenize, probabilities
    ), policy


def resolve_encoder(files: ModelFiles, config: HeadConfig, cache: str) -> ModelFiles:
    """The encoder of the head in ``files``, at the revision that it was trained on. Raises ModelError."""
    encoder_files = resolve(parse(config.encoder), cache)
    if encoder_files.revision != config.encoder_revision:
        raise ModelError(
            f"model {files.uri}: its head was trained on {config.encoder} at revision {config.encoder_revision}, and"
            f" revision {encoder_files.revision} is here; on other weights its scores mean nothing"
        )
    return encoder_files


def read_config(path: Path) -> HeadConfig:
    """The head's config.json, checked. Raises ModelError."""
    try:
        config = HeadConfig.model_validate(read_json(path / "config.json"))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ModelError(f"{path / 'config.json'}: {problems}") from None
    if unknown := set(config.pooling) - set(MODES):
        raise ModelError(f"{path / 'config.json'}: pooling: unknown {sorted(unknown)}; expected some of {MODES}")
    if unknown := set(config.thresholds) - set(config.labels):
        raise ModelError(f"{path / 'config.json'}: thresholds: unknown {sorted(unknown)}; expected labels of the head")
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises ModelError."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: no readable safetensors: {error}") from error


def head_weights(tensors: Mapping[str, Tensor], path: Path, features: int, labels: int) -> HeadWeights:
    """The head's own parameters, checked against its config. Raises ModelError."""
    expected = {"output.weight": (labels, features), "output.bias": (labels,)}
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise ModelError(f"{path}: {name} is {found or 'missing'}; expected shape {shape}")
    return HeadWeights(*(tensors[name].float() for name in expected))
