"""Our own forward pass of BERT, RoBERTa and DistilBERT on the CPU: exact, without padding, without transformers.

Devlin et al. 2018, arXiv:1810.04805, post-norm as transformers builds it. Every linear layer sees the tokens of all
texts as one matrix; attention runs over texts of one length at a time, which stand side by side, so that nothing is
padded or masked. Why this exists and what it gains: docs/adr/0005. What it does not know, it does not touch:
:func:`~feedmill.models.shape.read_shape` answers None, and the model goes through transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from feedmill.models.packed import Packed
from feedmill.models.shape import HEADS, Shape
from feedmill.models.weights import Shelf

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
}

Affine = tuple[Tensor, Tensor]
"""Weight and bias of a linear layer or of a layer normalisation."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The parameters of one layer."""

    query: Affine
    key: Affine
    value: Affine
    attended: Affine
    attended_norm: Affine
    up: Affine
    down: Affine
    norm: Affine


class Bert:
    """A loaded encoder without what is built on it. Call it on packed texts; several threads may."""

    def __init__(self, shape: Shape, shelf: Shelf) -> None:
        """Raises ModelError where the weights do not fit the config."""
        self.shape = shape
        self.words = shelf.take("embeddings.word_embeddings.weight", None, shape.size)
        self.positions = shelf.take(
            "embeddings.position_embeddings.weight", shape.positions + shape.first_position, shape.size
        )
        # There is one text, so every token is of the first type: its row is the same for all.
        has_types = shape.family != "distilbert"
        types = shelf.take("embeddings.token_type_embeddings.weight", None, shape.size) if has_types else None
        self.type_row = None if types is None else types[0]
        self.norm = shelf.norm("embeddings.LayerNorm", shape.size)
        self.layers = [_layer(shape, shelf, index) for index in range(shape.layers)]
        self._activate = _ACTIVATIONS[shape.activation]

    def __call__(self, packed: Packed) -> Tensor:
        """The states of all tokens, ``[tokens, size]``."""
        states = functional.embedding(packed.ids, self.words)
        states += functional.embedding(self._positions_of(packed), self.positions)
        if self.type_row is not None:
            states += self.type_row
        states = self._normal(states, self.norm)
        for layer in self.layers:
            attended = functional.linear(self._attend(layer, states, packed), *layer.attended)
            states = self._normal(attended.add_(states), layer.attended_norm)
            inner = self._activate(functional.linear(states, *layer.up))
            states = self._normal(functional.linear(inner, *layer.down).add_(states), layer.norm)
        return states

    def _positions_of(self, packed: Packed) -> Tensor:
        """Rows of the position embeddings. RoBERTa does not count padding, even where a text spells it out."""
        offset = self.shape.first_position
        if not offset or not (packed.ids == self.shape.pad_id).any():
            return packed.positions + offset
        positions = torch.empty_like(packed.positions)
        for run in packed.runs:
            counts = (packed.ids[run.slice] != self.shape.pad_id).view(run.texts, run.length).long()
            positions[run.slice] = (counts.cumsum(1) * counts + self.shape.pad_id).flatten()
        return positions

    def _normal(self, states: Tensor, parameters: Affine) -> Tensor:
        return functional.layer_norm(states, (self.shape.size,), *parameters, self.shape.epsilon)

    def _attend(self, layer: Layer, states: Tensor, packed: Packed) -> Tensor:
        projected = [functional.linear(states, *part) for part in (layer.query, layer.key, layer.value)]
        mixed = torch.empty_like(states)
        for run in packed.runs:
            shape = (run.texts, run.length, self.shape.heads, -1)
            query, key, value = (part[run.slice].view(shape).transpose(1, 2) for part in projected)
            found = functional.scaled_dot_product_attention(query, key, value)
            mixed[run.slice].view(shape).copy_(found.transpose(1, 2))
        return mixed


def _layer(shape: Shape, shelf: Shelf, index: int) -> Layer:
    names, size = shape.names, shape.size
    prefix = names.layer.format(index)
    return Layer(
        query=shelf.linear(prefix + names.query, size, size),
        key=shelf.linear(prefix + names.key, size, size),
        value=shelf.linear(prefix + names.value, size, size),
        attended=shelf.linear(prefix + names.attended, size, size),
        attended_norm=shelf.norm(prefix + names.attended_norm, size),
        up=shelf.linear(prefix + names.up, shape.inner, size),
        down=shelf.linear(prefix + names.down, size, shape.inner),
        norm=shelf.norm(prefix + names.norm, size),
    )


class Classified:
    """A classification layer on the first token's state, as the family's …ForSequenceClassification has it."""

    def __init__(self, shape: Shape, shelf: Shelf, labels: int) -> None:
        """Raises ModelError where the weights lack it."""
        first, last = HEADS[shape.family]
        self.first = shelf.linear(first, None, shape.size)
        self.last = shelf.linear(last, labels, len(self.first[0]))
        self._activate = torch.relu if shape.family == "distilbert" else torch.tanh

    def __call__(self, states: Tensor, packed: Packed) -> Tensor:
        """Logits ``[texts, labels]``."""
        inner = self._activate(functional.linear(packed.firsts(states), *self.first))
        return functional.linear(inner, *self.last)
