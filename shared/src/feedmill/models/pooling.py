"""From the states of a text's tokens to one vector, as the model's own sentence-transformers files say."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feedmill.errors import ModelError
from feedmill.models.packed import Packed
from feedmill.models.resolve import read_json

logger = logging.getLogger(__name__)

MODES = ("cls", "max", "mean")
"""Poolings that can be asked for, in the order in which sentence-transformers concatenates them."""

_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean"}


@dataclass(frozen=True, slots=True)
class Pooling:
    """How token states become a text's vector. ``modes``' results are concatenated."""

    modes: tuple[str, ...]
    normalise: bool

    def __call__(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool ``states`` ``[texts, tokens, size]`` under ``mask`` ``[texts, tokens]`` to ``[texts, modes * size]``."""
        pooled = torch.cat([_pool(mode, states, mask) for mode in self.modes], dim=-1)
        return torch.nn.functional.normalize(pooled, dim=-1) if self.normalise else pooled

    def pool_packed(self, states: Tensor, packed: Packed) -> Tensor:
        """Pool ``states`` ``[tokens, size]`` of a packed batch to ``[texts, modes * size]``, in its order."""
        rows = []
        for run in packed.runs:
            texts = states[run.slice].view(run.texts, run.length, -1)
            rows.append(torch.cat([_pool_whole(mode, texts) for mode in self.modes], dim=-1))
        pooled = torch.cat(rows)
        return torch.nn.functional.normalize(pooled, dim=-1) if self.normalise else pooled


def read_pooling(path: Path) -> Pooling:
    """The pooling of the model in ``path``, from its modules.json; mean and normalised where it has none.

    Raises:
        ModelError: a module or a pooling that Feedmill does not know, which left out would change every vector.
    """
    if not (path / "modules.json").is_file():
        logger.warning("%s has no modules.json: pooling by mean, normalised", path)
        return Pooling(("mean",), normalise=True)
    modes: tuple[str, ...] = ()
    normalise = False
    for module in _modules(path):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            modes = _modes(read_json(path / str(module.get("path", "")) / "config.json"), path)
        elif kind == "Normalize":
            normalise = True
        elif kind != "Transformer":
            raise ModelError(
                f"{path / 'modules.json'}: unknown module {kind!r}; expected Transformer, Pooling, Normalize"
            )
    if not modes:
        raise ModelError(f"{path / 'modules.json'}: no Pooling module; expected one")
    return Pooling(modes, normalise)


def _modules(path: Path) -> list[Mapping[str, Any]]:
    try:
        modules = json.loads((path / "modules.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path / 'modules.json'}: no readable JSON: {error}") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path / 'modules.json'}: expected a list of modules")
    return modules


def _modes(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    asked = {str(flag) for flag, on in config.items() if flag.startswith("pooling_mode_") and on is True}
    named = config.get("pooling_mode")
    modes = tuple(mode for flag, mode in _FLAGS.items() if flag in asked or named == mode)
    if asked - set(_FLAGS) or not modes:
        found = ", ".join(sorted(asked)) or named or "none"
        raise ModelError(f"{path}: pooling {found} is not supported; expected {', '.join(MODES)}")
    return modes


def _pool(mode: str, states: Tensor, mask: Tensor) -> Tensor:
    if mode == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1)
    if mode == "max":
        return states.masked_fill(weights == 0, torch.finfo(states.dtype).min).amax(dim=1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _pool_whole(mode: str, states: Tensor) -> Tensor:
    """Pool texts that have no padding: ``[texts, tokens, size]`` to ``[texts, size]``."""
    if mode == "cls":
        return states[:, 0]
    return states.amax(dim=1) if mode == "max" else states.mean(dim=1)
