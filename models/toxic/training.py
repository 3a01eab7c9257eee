"""Training: an adapter on all linear layers of the encoder and a linear head; rows may know some labels only."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data import LABELS, Example
from feedmill.models.runtime import pad
from feedmill.models.tokens import Tokens
from lora import attach


@dataclass(frozen=True, slots=True)
class Options:
    rank: int = 8
    alpha: float = 16.0
    epochs: float = 2.0
    """Passes over the rows."""
    batch: int = 32
    learning_rate: float = 1e-3
    head_learning_rate: float = 5e-3
    warm_up: float = 0.06
    seed: int = 7
    bf16: bool = False
    """Forward passes under bfloat16 autocast: half as fast again where the CPU has the instructions, many times slower
    where it has not."""
    checkpoint_steps: int = 100


class Network(nn.Module):
    """The encoder with its adapter, mean pooling, and the head: logits ``[texts, labels]``."""

    def __init__(self, encoder: Any, options: Options) -> None:
        super().__init__()
        torch.manual_seed(options.seed)
        self.encoder = encoder
        self.layers = attach(encoder, options.rank, options.alpha)
        self.head = nn.Linear(encoder.config.hidden_size, len(LABELS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weights = mask.unsqueeze(-1)
        logits: Tensor = self.head((states * weights).sum(dim=1) / weights.sum(dim=1))
        return logits

    def tensors(self) -> dict[str, Tensor]:
        """What training changes, named as feedmill.models.head reads it."""
        adapter = {
            f"adapter.{name}.{part}": getattr(layer, part) for name, layer in self.layers.items() for part in "ab"
        }
        return {**adapter, "output.weight": self.head.weight, "output.bias": self.head.bias}


@dataclass(frozen=True, slots=True)
class Rows:
    """Tokenized training rows."""

    tokens: Sequence[Tokens]
    targets: Tensor
    weights: Tensor

    @classmethod
    def of(cls, tokens: Sequence[Tokens], examples: Sequence[Example]) -> Rows:
        return cls(
            tokens,
            torch.tensor([example.targets for example in examples]),
            torch.tensor([example.weight for example in examples]),
        )

    def losses(self, network: Network, indexes: Sequence[int]) -> Tensor:
        """Binary cross-entropy summed over the labels that the rows know.

        As in use, a long text's logits are those of its worst window, for each label its own: a clean text teaches that
        its most suspicious window is clean, and a toxic one is not blamed on a window that has nothing toxic.
        """
        texts = [self.tokens[index] for index in indexes]
        windows = [(text.ids, *text.further) for text in texts]
        inputs = pad([ids for text in windows for ids in text], 0, torch.device("cpu"))
        found = network(inputs.ids, inputs.mask).float().split([len(text) for text in windows])
        logits = torch.stack([text.amax(dim=0) for text in found])
        targets, weights = self.targets[list(indexes)], self.weights[list(indexes)]
        each = nn.functional.binary_cross_entropy_with_logits(logits, targets.nan_to_num(0.0), reduction="none")
        return (each * ~targets.isnan() * weights[:, None]).sum()

    def known(self, indexes: Sequence[int]) -> int:
        """How many labels the rows know."""
        return int((~self.targets[list(indexes)].isnan()).sum())


def train(network: Network, rows: Rows, options: Options, checkpoint: Path) -> None:
    """Train in place, under one schedule of the learning rate.

    Goes on from ``checkpoint`` where there is one, and writes it as it goes.
    """
    tensors = network.tensors()
    optimiser = _optimiser(network, options)
    total = max(1, round(options.epochs * math.ceil(len(rows.tokens) / options.batch)))
    done = _resume(checkpoint, tensors, optimiser)
    progress, workers = _Progress(total, done), _Workers(network, rows, options)
    for step, indexes in islice(enumerate(_batches(rows.tokens, options), start=1), done, total):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * _share(step, total, options.warm_up)
        progress.add(workers.step(indexes, optimiser))
        if step % options.checkpoint_steps == 0 or step == total:
            progress.show(step)
            _save(checkpoint, tensors, optimiser, step, options)


def _optimiser(network: Network, options: Options) -> torch.optim.Optimizer:
    rates = {"adapter.": options.learning_rate, "output.": options.head_learning_rate}
    groups = [
        {"params": [one for name, one in network.tensors().items() if name.startswith(part)], "lr": rate, "peak": rate}
        for part, rate in rates.items()
    ]
    return torch.optim.AdamW(groups)


class _Workers:
    """Threads that take a part of each batch, with one core each.

    Layers as small as these keep two cores busy for two thirds of the time when they share each product; half a batch
    for each leaves them nothing to wait for. A part's gradients are its own until they are added, in order: the sum
    does not depend on which is done first.
    """

    def __init__(self, network: Network, rows: Rows, options: Options) -> None:
        self._network, self._rows, self._options = network, rows, options
        self._tensors = list(network.tensors().values())
        self._count = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._count, initializer=torch.set_num_threads, initargs=(1,))

    def step(self, indexes: Sequence[int], optimiser: torch.optim.Optimizer) -> float:
        """One step on a batch; returns its loss."""
        known = max(1, self._rows.known(indexes))
        parts = [indexes[at :: self._count] for at in range(min(self._count, len(indexes)))]
        losses, gradients = zip(*self._pool.map(lambda part: self._gradients(part, known), parts), strict=True)
        for tensor, *pieces in zip(self._tensors, *gradients, strict=True):
            tensor.grad = torch.stack(pieces).sum(dim=0)
        nn.utils.clip_grad_norm_(self._tensors, 1.0)
        optimiser.step()
        return float(sum(losses))

    def _gradients(self, indexes: Sequence[int], known: int) -> tuple[float, tuple[Tensor, ...]]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._options.bf16):
            loss = self._rows.losses(self._network, indexes) / known
        return loss.item(), torch.autograd.grad(loss, self._tensors)


def _batches(tokens: Sequence[Tokens], options: Options) -> Iterator[list[int]]:
    """Batches of texts of about the same length, in an order that seed and epoch decide.

    Sorted in pools of 64 batches: hardly any padding, and yet other neighbours in each epoch.
    """
    epoch = 0
    while True:
        chance = random.Random(options.seed * 1000 + epoch)
        order = chance.sample(range(len(tokens)), len(tokens))
        pool = options.batch * 64
        batches: list[list[int]] = []
        for start in range(0, len(order), pool):
            block = sorted(order[start : start + pool], key=lambda index: tokens[index].cost)
            own = [block[at : at + options.batch] for at in range(0, len(block), options.batch)]
            chance.shuffle(own)
            batches += own
        yield from batches
        epoch += 1


def _share(step: int, total: int, warm_up: float) -> float:
    """Linear warm-up, then linear decay to zero."""
    rise = max(1, round(total * warm_up))
    return step / rise if step <= rise else max(0.0, (total - step) / max(1, total - rise))


class _Progress:
    def __init__(self, total: int, done: int) -> None:
        self._total, self._first, self._started = total, done, time.monotonic()
        self._losses: list[float] = []

    def add(self, loss: float) -> None:
        self._losses.append(loss)

    def show(self, step: int) -> None:
        recent = self._losses[-200:]
        left = (time.monotonic() - self._started) / max(1, step - self._first) * (self._total - step)
        loss = sum(recent) / max(1, len(recent))
        print(f"  step {step} of {self._total}: loss {loss:.4f}, about {left:.0f} s left", file=sys.stderr, flush=True)


def _save(
    path: Path, tensors: dict[str, Tensor], optimiser: torch.optim.Optimizer, step: int, options: Options
) -> None:
    """Weights and the optimiser's moments; written beside and renamed, so that a stop in between loses nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"weight/{name}": tensor.detach() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        state |= {f"{key}/{name}": optimiser.state[tensor][key] for key in ("exp_avg", "exp_avg_sq")}
    beside = path.with_suffix(".part")
    save_file(state, beside, metadata={"step": str(step), "options": json.dumps(asdict(options))})
    beside.replace(path)


def _resume(path: Path, tensors: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> int:
    """The steps done, with their weights loaded; 0 without a checkpoint."""
    if not path.is_file():
        return 0
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        step = int((file.metadata() or {})["step"])
    state = load_file(path)
    for name, tensor in tensors.items():
        tensor.data.copy_(state[f"weight/{name}"])
        optimiser.state[tensor] = {"step": torch.tensor(float(step))} | {
            key: state[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq")
        }
    print(f"  going on after step {step}", file=sys.stderr)
    return step
