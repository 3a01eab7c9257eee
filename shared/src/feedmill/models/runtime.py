"""What all models share around the forward pass: device, threads, loading weights, padding, micro-batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from feedmill.errors import ModelError, SettingsError
from feedmill.models.batches import length_sorted_batches
from feedmill.models.lanes import share_cores
from feedmill.models.tokens import Tokens
from feedmill.settings import ModelSettings

logger = logging.getLogger(__name__)

# Padded tokens of one forward pass. On two cores about a thousand is best (three times the throughput of one text at
# a time; more only adds padding); a GPU needs far more to be busy.
_CPU_BUDGET = 1024
_CUDA_BUDGET = 16_384

# Position embeddings that start behind the padding id: their tables hold that many positions fewer than they say.
_OFFSET_POSITIONS = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "roberta-prelayernorm",
}

LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)
"""What transformers raises for configs and weights that do not fit: there is no common base."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and in what portions forward passes run."""

    device: torch.device
    padded_token_budget: int
    lanes: int = 1
    """How many threads may call the model at the same time."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A padded micro-batch: ``ids`` and ``mask`` are int64 ``[texts, tokens]``; the mask is 0 on padding."""

    ids: Tensor
    mask: Tensor


def make_runtime(settings: ModelSettings) -> Runtime:
    """Choose the device, and set torch's threads: for the whole process, so before the first forward pass.

    The number is torch's own, and each thread takes it over with its first operation: a lane started later has it too.
    """
    lanes = share_cores(settings)
    torch.set_num_threads(lanes.threads)
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise SettingsError("FEEDMILL_DEVICE: cuda was asked for and torch sees none; expected auto or cpu")
    use_cuda = has_cuda and settings.device != "cpu"
    if use_cuda:
        return Runtime(torch.device("cuda"), _CUDA_BUDGET, settings.lanes or 1)
    return Runtime(torch.device("cpu"), _CPU_BUDGET, lanes.count)


def load_pretrained(auto_class: Any, path: Path, runtime: Runtime, may_lack: tuple[str, ...] = ()) -> Any:
    """Load weights: safetensors only, no remote code, no network, float32, ready for inference.

    Args:
        auto_class: one of transformers' ``AutoModel…`` classes.
        may_lack: beginnings of parameter names that the weights may lack, because nothing uses them.

    Raises:
        ModelError: unreadable weights, or weights that leave parameters at random values (a classifier loaded from a
            plain language model would give random verdicts).
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, info = auto_class.from_pretrained(
            str(path),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise ModelError(f"{path}: transformers can't load this model: {type(error).__name__}: {error}") from error
    random = [name for name in info["missing_keys"] if not name.startswith(may_lack)] + list(info["mismatched_keys"])
    if random:
        raise ModelError(f"{path}: the weights lack {', '.join(map(str, sorted(random)[:5]))}; expected a whole model")
    return model.to(runtime.device).eval().requires_grad_(requires_grad=False)


def max_positions(config: Any) -> int | None:
    """The most tokens that the model's position embeddings allow; None where they set no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or getattr(config, "is_encoder_decoder", False):
        return positions
    offset = pad_token_id(config) + 1 if config.model_type in _OFFSET_POSITIONS else 0
    return int(positions) - offset


def pad_token_id(config: Any) -> int:
    """The id to pad with; the mask hides it, so any will do for a model that names none."""
    return int(getattr(config, "pad_token_id", None) or 0)


def micro_batches(batch: Sequence[Tokens], pad_id: int, runtime: Runtime) -> Iterator[tuple[list[int], Inputs]]:
    """Cut a batch by length and pad each part to its own longest text; yields the texts' indexes with their inputs."""
    for indexes in length_sorted_batches([tokens.cost for tokens in batch], runtime.padded_token_budget):
        yield indexes, pad([batch[index].ids for index in indexes], pad_id, runtime.device)


def pad(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Inputs:
    """Token ids of several texts as one rectangle, padded at the end."""
    # An empty text of a tokenizer without special tokens becomes one padding token: attention needs one to look at.
    filled = [row or (pad_id,) for row in rows]
    longest = max(map(len, filled))
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in filled], dtype=torch.int64)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in filled], dtype=torch.int64)
    return Inputs(ids.to(device), mask.to(device))


def run_padded(batch: Sequence[Tokens], pad_id: int, runtime: Runtime, forward: Callable[[Inputs], Tensor]) -> Tensor:
    """``forward`` over a batch in micro-batches; its rows, float32 ``[texts, …]``, on the CPU in the batch's order."""
    parts: list[Tensor] = []
    order: list[int] = []
    with torch.inference_mode():
        for indexes, inputs in micro_batches(batch, pad_id, runtime):
            parts.append(forward(inputs).float().cpu())
            order += indexes
        rows = torch.cat(parts)
        return torch.empty_like(rows).index_copy_(0, torch.tensor(order), rows)
