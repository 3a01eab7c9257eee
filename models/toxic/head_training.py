"""Training the head: a hidden layer on the embeddings, over labels of which each row may know only some."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data import Example
from features import Features
from feedmill.models.head import HeadWeights
from metrics import Floats, any_label

# Any label of the six holds for this share of the original data set; the copies in use have three times as many.
NATURAL_RATE = 0.102


@dataclass(frozen=True, slots=True)
class Options:
    hidden: int = 128
    epochs: int = 12
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    input_dropout: float = 0.15
    dropout: float = 0.3
    seed: int = 7


def fit(features: Features, examples: Sequence[Example], options: Options) -> HeadWeights:
    """Train on ``features`` ``[rows, size]`` of ``examples``; targets that are NaN add nothing to the loss."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # more would add up in another order on another machine, and hardly be quicker
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    inputs = torch.from_numpy((features - mean) / deviation)
    targets = torch.tensor([example.targets for example in examples])
    weights = torch.tensor([example.weight for example in examples])
    network = nn.Sequential(
        nn.Dropout(options.input_dropout),
        nn.Linear(inputs.shape[1], options.hidden),
        nn.ReLU(),
        nn.Dropout(options.dropout),
        nn.Linear(options.hidden, targets.shape[1]),
    )
    _train(network, inputs, targets, weights, options)
    return _folded(network, torch.from_numpy(mean), torch.from_numpy(deviation))


def calibrated(head: HeadWeights, features: Features, truth: Floats, weights: Floats) -> HeadWeights:
    """The head with its output biases moved so that the mean score of each label is its weighted rate in ``truth``.

    Training rows have far more toxic ones than comments have; this takes the excess out of the scores.
    """
    logits = torch.logit(head(torch.from_numpy(features)).double(), eps=1e-12).numpy()
    shifts = [_shift(logits[:, label], truth[:, label], weights) for label in range(truth.shape[1])]
    return HeadWeights(
        head.hidden_weight, head.hidden_bias, head.output_weight, head.output_bias + torch.tensor(shifts).float()
    )


def natural_weights(truth: Floats) -> Floats:
    """Row weights under which the share of rows with any label is ``NATURAL_RATE``."""
    labelled = any_label(truth)
    rate = float(labelled.mean()) if len(labelled) else 0.0
    if not 0 < rate < 1:
        return np.ones(len(truth))
    return np.where(labelled, NATURAL_RATE / rate, (1 - NATURAL_RATE) / (1 - rate))


def _train(network: nn.Module, inputs: Tensor, targets: Tensor, weights: Tensor, options: Options) -> None:
    known = ~targets.isnan()
    targets = targets.nan_to_num(0.0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    steps = options.epochs * -(-len(inputs) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=options.learning_rate, total_steps=steps + 1)
    started = time.monotonic()
    for epoch in range(1, options.epochs + 1):
        total = 0.0
        for rows in torch.split(torch.randperm(len(inputs)), options.batch):
            losses = nn.functional.binary_cross_entropy_with_logits(
                network(inputs[rows]), targets[rows], reduction="none"
            )
            loss = (losses * known[rows] * weights[rows, None]).sum() / known[rows].sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        left = (time.monotonic() - started) / epoch * (options.epochs - epoch)
        print(
            f"  epoch {epoch} of {options.epochs}: loss {total / len(inputs):.4f}, about {left:.0f} s left",
            file=sys.stderr,
        )
    network.eval()


def _folded(network: nn.Sequential, mean: Tensor, deviation: Tensor) -> HeadWeights:
    """The weights for features as the encoder gives them: the first layer takes over their standardisation."""
    first, last = network[1], network[4]
    if not isinstance(first, nn.Linear) or not isinstance(last, nn.Linear):
        raise TypeError("the network's layers moved")
    weight = first.weight.detach() / deviation
    return HeadWeights(weight, first.bias.detach() - weight @ mean, last.weight.detach(), last.bias.detach())


def _shift(logits: Floats, truth: Floats, weights: Floats) -> float:
    """By bisection: the mean score rises with the shift."""
    rate = float(np.average(truth, weights=weights))
    low, high = -12.0, 12.0
    for _ in range(60):
        middle = (low + high) / 2
        if np.average(1 / (1 + np.exp(-(logits + middle))), weights=weights) < rate:
            low = middle
        else:
            high = middle
    # A label that the held-out rows do not have says nothing about its rate.
    return (low + high) / 2 if 0 < rate < 1 else 0.0
