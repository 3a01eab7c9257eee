"""The mean of trained models, which costs what one costs and judges better than each (Wortsman et al. 2022,
arXiv:2203.05482, "model soups")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def mean(models: Sequence[Tensors], rank: int) -> dict[str, Tensor]:
    """The mean of models of one shape, their tensors named as feedmill.models.head reads them.

    What a low-rank adapter adds to a layer is a product, and the mean of products is of a higher rank than each: this
    is its best approximation of ``rank`` (Eckart and Young 1936), split evenly into the two factors.
    """
    blended = {}
    for name in models[0]:
        if name.endswith(".a"):
            up, down = _factors(_mean([_product(model, name) for model in models]), rank)
            half = models[0][name].dtype
            blended |= {name: down.to(half), _partner(name): up.to(half)}
        elif not name.endswith(".b"):
            blended[name] = _mean([model[name] for model in models])
    return blended


def _product(model: Tensors, name: str) -> Tensor:
    return model[_partner(name)].float() @ model[name].float()


def _partner(name: str) -> str:
    return name.removesuffix(".a") + ".b"


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(dim=0)


def _factors(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``[outputs, rank]`` and ``[rank, inputs]``."""
    left, values, right = torch.linalg.svd(product, full_matrices=False)
    roots = values[:rank].sqrt()
    return (left[:, :rank] * roots).contiguous(), (roots[:, None] * right[:rank]).contiguous()
