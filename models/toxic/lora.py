"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685) of an encoder's linear layers, in plain torch.

Sixty lines in place of a dependency: the adapter is written in the form that feedmill.models.adapter merges into the
encoder's own weights, so that peft would be needed for nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LoraLinear(nn.Module):
    """A frozen linear layer plus ``scale * b @ a``; ``b`` starts at zero, so that nothing changes before training."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.a = nn.Parameter(torch.empty(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        low = nn.functional.linear(inputs, self.a).flatten(0, -2)
        base: Tensor = self.base(inputs)
        # One product that adds to the other's result: two passes less over the states, which are what takes the time.
        return torch.addmm(base.flatten(0, -2), low, self.b.t(), alpha=self.scale).view_as(base)


def attach(network: nn.Module, rank: int, alpha: float) -> dict[str, LoraLinear]:
    """Put a LoraLinear in place of every linear layer of the encoder's blocks; returns them by the layer's name."""
    layers: dict[str, LoraLinear] = {}
    for parent_name, parent in list(network.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and parent_name.startswith("encoder."):
                layers[f"{parent_name}.{name}"] = LoraLinear(child, rank, alpha / rank)
                setattr(parent, name, layers[f"{parent_name}.{name}"])
    return layers
