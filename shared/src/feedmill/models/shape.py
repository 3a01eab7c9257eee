"""What a model's config.json says about an encoder that our own forward passes can run. Pure: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish")


@dataclass(frozen=True, slots=True)
class Names:
    """What a family calls its parameters; ``layer`` comes before the names that follow it."""

    prefix: str
    layer: str
    query: str
    key: str
    value: str
    attended: str
    attended_norm: str
    up: str
    down: str
    norm: str


_BERT = Names(
    "bert.", "encoder.layer.{}.", "attention.self.query", "attention.self.key", "attention.self.value",
    "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
_DISTILBERT = Names(
    "distilbert.", "transformer.layer.{}.", "attention.q_lin", "attention.k_lin", "attention.v_lin",
    "attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
)  # fmt: skip
_FAMILIES = {
    "bert": _BERT,
    "roberta": Names("roberta.", *(getattr(_BERT, name) for name in Names.__slots__[1:])),
    "xlm-roberta": Names("roberta.", *(getattr(_BERT, name) for name in Names.__slots__[1:])),
    "camembert": Names("roberta.", *(getattr(_BERT, name) for name in Names.__slots__[1:])),
    "distilbert": _DISTILBERT,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What the config says about a model that this module can run."""

    family: str
    size: int
    layers: int
    heads: int
    inner: int
    epsilon: float
    activation: str
    positions: int
    """Tokens that the position embeddings allow."""
    first_position: int
    """RoBERTa's positions begin behind the padding id."""
    pad_id: int

    @property
    def names(self) -> Names:
        return _FAMILIES[self.family]


def read_shape(config: Mapping[str, Any]) -> Shape | None:
    """The shape in a model's config.json; None where transformers must run it: another family, or an option of this
    one that nobody uses (relative positions, a decoder, quantised weights)."""
    family = str(config.get("model_type"))
    is_plain = (
        family in _FAMILIES
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not (config.get("is_decoder") or config.get("add_cross_attention") or config.get("quantization_config"))
    )
    if not is_plain:
        return None
    is_distil, pad_id = family == "distilbert", config.get("pad_token_id")
    pad_id = int(pad_id if pad_id is not None else 0 if family in {"bert", "distilbert"} else 1)
    offset = 0 if family in {"bert", "distilbert"} else pad_id + 1

    def number(name: str, distil_name: str, default: int) -> int:
        return int(config.get(distil_name if is_distil else name, default))

    shape = Shape(
        family=family,
        size=number("hidden_size", "dim", 768),
        layers=number("num_hidden_layers", "n_layers", 6 if is_distil else 12),
        heads=number("num_attention_heads", "n_heads", 12),
        inner=number("intermediate_size", "hidden_dim", 3072),
        epsilon=1e-12 if is_distil else float(config.get("layer_norm_eps", 1e-12)),
        activation=str(config.get("activation" if is_distil else "hidden_act", "gelu")),
        positions=int(config.get("max_position_embeddings", 512)) - offset,
        first_position=offset,
        pad_id=pad_id,
    )
    return shape if shape.activation in ACTIVATIONS and shape.size % shape.heads == 0 else None


HEADS = {
    "bert": ("pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj"),
    "camembert": ("classifier.dense", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "classifier"),
}
"""The layers of each family's …ForSequenceClassification: the one before the last, and the last."""
