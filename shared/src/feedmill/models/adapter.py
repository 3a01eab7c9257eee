"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685), merged into a network's weights when it is loaded.

After merging, the network costs what it cost before. An adapter is a pair of tensors for each linear layer that it
changes: ``adapter.<layer>.a`` ``[rank, inputs]`` and ``adapter.<layer>.b`` ``[outputs, rank]``.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from feedmill.errors import ModelError

PREFIX = "adapter."


def merge_adapter(weights: MutableMapping[str, Any], tensors: Mapping[str, Tensor], scale: float, source: str) -> None:
    """Add ``scale * b @ a`` to the weight of every layer that ``tensors`` name, in a tensor of its own: what is there
    may be a mapped file. Other tensors are left alone.

    Raises:
        ModelError: a layer that the network has not, half a pair, or shapes that do not fit. ``source`` names the file.
    """
    names = {name.removeprefix(PREFIX).rpartition(".")[0] for name in tensors if name.startswith(PREFIX)}
    for name in sorted(names):
        weight = weights.get(f"{name}.weight")
        if weight is None:
            raise ModelError(f"{source}: the adapter changes {name}, and the encoder has no such layer")
        down, up = (tensors.get(f"{PREFIX}{name}.{part}") for part in "ab")
        if down is None or up is None:
            raise ModelError(f"{source}: {PREFIX}{name} has one of .a and .b; expected both")
        if down.dim() != 2 or tuple(up.shape) != (weight.shape[0], len(down)) or down.shape[1] != weight.shape[1]:
            raise ModelError(
                f"{source}: {PREFIX}{name} has shapes {tuple(down.shape)} and {tuple(up.shape)};"
                f" expected [rank, {weight.shape[1]}] and [{weight.shape[0]}, rank]"
            )
        with torch.no_grad():
            weights[f"{name}.weight"] = weight + scale * (up.float() @ down.float()).to(weight.device)
