"""Running an exported graph on ONNX Runtime: packed texts in, rows of numbers out. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from feedmill.errors import ModelError
from feedmill.models.batches import length_sorted_batches, run_portions
from feedmill.models.exports.record import GRAPH, Export
from feedmill.models.lanes import Lanes
from feedmill.models.tokens import Tokens

# Places of one forward pass, those that hold no token too: from 256 on more made no difference.
TOKEN_BUDGET = 1024

Feeds = dict[str, NDArray[Any]]


class Session:
    """A loaded graph. Several threads may call it: they share the weights, and each has one batch in the model."""

    batch_tokens = TOKEN_BUDGET

    def __init__(self, folder: Path, export: Export, lanes: Lanes) -> None:
        """Raises ModelError."""
        self._export = export
        self._lanes = lanes.count
        self._session = open_session(folder / GRAPH, lanes.threads)

    def __call__(self, batch: Sequence[Tokens]) -> NDArray[np.float32]:
        """One or more texts (their first windows) to rows ``[texts, outputs]``, in order. Blocking."""

        def forward(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
            feeds = pack_feeds(rows, self._export.pad_id, self._export.first_position)
            numbers: NDArray[np.float32] = self._session.run(None, feeds)[0]
            return numbers

        # Attention is over the rectangle: a long text among short ones would cost its length squared for each of them.
        return run_portions([text.ids for text in batch], TOKEN_BUDGET, forward, self._lanes, length_sorted_batches)


def open_session(graph: Path, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU. Raises ModelError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # for batches of always the same shape
    options.log_severity_level = 3
    # A lane that waits for its next batch must not burn a core that the event loop or another lane could use.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    # The library's errors have no common base below Exception.
    except Exception as error:
        raise ModelError(f"{graph}: ONNX Runtime can't load this graph: {error}") from error


def pack_feeds(rows: Sequence[Sequence[int]], pad_id: int, first_position: int) -> Feeds:
    """What the graph takes, for texts sorted by length: tokens one after another, and where each text's are.

    ``ids`` and ``positions`` ``[tokens]``; ``slots`` ``[texts, longest]``, the token in each place of a rectangle (the
    text's first where it has none); ``places`` ``[tokens]``, the way back; ``lengths`` ``[texts]``; ``shares``
    ``[texts, longest, 1]``, each token's share of its text's mean. Only attention and pooling use the rectangle.
    """
    filled = [row or (pad_id,) for row in rows]  # attention needs one token to look at
    lengths = np.fromiter(map(len, filled), np.int64, len(filled))
    ids = np.fromiter(chain.from_iterable(filled), np.int64, int(lengths.sum()))
    starts = np.cumsum(lengths) - lengths
    column = np.arange(lengths.max())
    is_token = column < lengths[:, None]
    return {
        "ids": ids,
        "positions": _positions(ids, starts, lengths, pad_id, first_position),
        "slots": np.where(is_token, starts[:, None] + column, starts[:, None]),
        "places": np.flatnonzero(is_token),
        "lengths": lengths.astype(np.int32),
        "shares": (is_token / lengths[:, None]).astype(np.float32)[..., None],
    }


def _positions(
    ids: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64], pad_id: int, first: int
) -> NDArray[np.int64]:
    """Rows of the position embeddings. RoBERTa does not count padding, even where a text spells it out."""
    plain: NDArray[np.int64] = np.arange(len(ids)) - np.repeat(starts, lengths) + first
    if not first or not (ids == pad_id).any():
        return plain
    counts = (ids != pad_id).astype(np.int64)
    running = np.cumsum(counts)
    before = np.repeat((running - counts)[starts], lengths)
    counted: NDArray[np.int64] = (running - before) * counts + pad_id
    return counted
