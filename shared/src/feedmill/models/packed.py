"""Packed batches: the tokens of all texts one after another, nothing padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feedmill.models.batches import run_portions

# Tokens of one forward pass, and of a worker's batch. Measured from 256 to 4,096 on one thread: no size was better than
# another by more than a tenth, and a message waits for fewer others in a small one, which needs less memory as well.
TOKEN_BUDGET = 512


@dataclass(frozen=True, slots=True)
class Run:
    """Texts of one length, side by side in a packed batch: tokens ``start`` to ``start + texts * length``."""

    start: int
    texts: int
    length: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.texts * self.length)


@dataclass(frozen=True, slots=True)
class Packed:
    """``ids`` and ``positions`` are int64 ``[tokens]``; the texts stand in ascending order of length."""

    ids: Tensor
    positions: Tensor
    runs: tuple[Run, ...]

    def firsts(self, states: Tensor) -> Tensor:
        """The state of each text's first token, ``[texts, size]`` of ``[tokens, size]``."""
        return torch.cat([states[run.slice][:: run.length] for run in self.runs])


def pack(rows: Sequence[Sequence[int]], pad_id: int) -> Packed:
    """Pack texts that are sorted by length. An empty one becomes one padding token: attention needs one to look at."""
    filled = [row or (pad_id,) for row in rows]
    runs: list[Run] = []
    start = 0
    for length, group in groupby(filled, key=len):
        runs.append(Run(start, sum(1 for _ in group), length))
        start += runs[-1].texts * length
    ids = np.fromiter(chain.from_iterable(filled), dtype=np.int64, count=start)
    positions = np.concatenate([np.tile(np.arange(run.length), run.texts) for run in runs])
    return Packed(torch.from_numpy(ids), torch.from_numpy(positions), tuple(runs))


def run_packed(
    rows: Sequence[Sequence[int]], pad_id: int, forward: Callable[[Packed], Tensor], lanes: int = 1
) -> NDArray[np.float32]:
    """``forward`` over texts in packed portions; its rows ``[texts, …]`` in the texts' order."""

    def one(portion: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        with torch.inference_mode():  # holds for the thread that it is entered in
            numbers: NDArray[np.float32] = forward(pack(portion, pad_id)).numpy()
        return numbers

    return run_portions(rows, TOKEN_BUDGET, one, lanes)
