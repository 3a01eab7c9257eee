"""Safetensors mapped into memory: nothing is copied, and what no batch touches (most of a vocabulary) is never read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from feedmill.errors import ModelError
from feedmill.models.resolve import read_json

# Names that checkpoints of 2018 still have for a normalisation's parameters.
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def map_weights(path: Path, prefixes: Sequence[str] = ()) -> dict[str, Tensor]:
    """All tensors of the model in ``path`` by name, float32, without the first of ``prefixes`` that a name begins with.

    Raises:
        ModelError: unreadable weights.
    """
    weights: dict[str, Tensor] = {}
    for file in _files(path):
        try:
            with safe_open(str(file), framework="pt") as opened:
                weights.update((_plain(name, prefixes), opened.get_tensor(name)) for name in opened.keys())  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise ModelError(f"{file}: can't load this model's weights: {error}") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


class Shelf:
    """Takes tensors by name, and complains in the model's own words where one is missing or of another shape."""

    def __init__(self, weights: dict[str, Tensor], path: Path) -> None:
        self.weights = weights
        self.path = path

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor ``name``; ``None`` in ``shape`` stands for any size. Raises ModelError."""
        tensor = self.weights.get(name)
        if tensor is None:
            raise ModelError(f"{self.path}: the weights lack {name}; expected a whole model")
        fits = tensor.dim() == len(shape) and all(
            want in (None, size) for want, size in zip(shape, tensor.shape, strict=True)
        )
        if not fits or tensor.dtype != torch.float32:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ModelError(f"{self.path}: {name} has shape {tuple(tensor.shape)}; expected ({wanted})")
        return tensor

    def linear(self, name: str, outputs: int | None, inputs: int) -> tuple[Tensor, Tensor]:
        """Weight ``[outputs, inputs]`` and bias ``[outputs]`` of a layer."""
        weight = self.take(f"{name}.weight", outputs, inputs)
        return weight, self.take(f"{name}.bias", len(weight))

    def norm(self, name: str, size: int) -> tuple[Tensor, Tensor]:
        """Weight and bias ``[size]`` of a layer normalisation."""
        return self.take(f"{name}.weight", size), self.take(f"{name}.bias", size)


def _files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file() and not (path / "model.safetensors").is_file():
        return [path / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
    return [path / "model.safetensors"]


def _plain(name: str, prefixes: Sequence[str]) -> str:
    for prefix in prefixes:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    for old, new in _OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
