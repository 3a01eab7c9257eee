"""int8 for linear layers: weights per output, activations per token, smoothed per input.

SmoothQuant (Xiao et al. 2022, arXiv:2211.10438), with each token's scale found while running. What this scheme is and
what others lost and gained: docs/adr/0007. Weights take 7 bits, because on processors without VNNI a sum of two
products of 8-bit numbers saturates; so the numbers are the same on every processor. Every token has a scale of its own,
so a text's vector does not depend on its neighbours in a batch. The layer behind the activation function (``down``)
stays in fp32: its inputs have rare, large values that 8 bits can't hold beside the small ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from feedmill.models.exports.graph import Graph, Smoothing

WEIGHT_MAX = 63
ACTIVATION_MAX = 127
ALPHA = 0.5
"""How much of the activations' range the weights take over: the paper's own value."""
KEPT = ("down",)


def is_quantised(name: str) -> bool:
    """Whether the linear layer of this name is."""
    return name.rpartition(".")[2] not in KEPT


def smoothing_factors(largest: NDArray[np.float64], weight: NDArray[Any]) -> NDArray[np.float64]:
    """Factors ``[inputs]`` from the largest activation of each input and from the weights ``[inputs, outputs]``."""
    factors: NDArray[Any] = np.maximum(largest, 1e-6) ** ALPHA
    factors = factors / np.maximum(np.abs(weight).max(axis=1), 1e-9) ** (1 - ALPHA)
    return np.asarray(factors / np.exp(np.log(factors).mean()), dtype=np.float64)


def scheme_name(smoothing: Mapping[str, NDArray[np.float64]]) -> str:
    """``int8-`` and a hash of the scheme and its numbers: other texts to calibrate with make another space."""
    digest = hashlib.sha256(f"{WEIGHT_MAX} {ACTIVATION_MAX} {ALPHA} {KEPT}".encode())
    for name in sorted(smoothing):
        # Rounded: the last digits depend on the processor that calibrated.
        digest.update(f"{name} {np.round(np.log2(smoothing[name]), 2).tolist()}".encode())
    return f"int8-{digest.hexdigest()[:8]}"


def rounded(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factors as the scheme's name sees them, so that one name stands for one set of numbers."""
    return np.asarray(2.0 ** np.round(np.log2(factors), 2), dtype=np.float64)


def quantised_linear(graph: Graph, name: str, inputs: str, weight: NDArray[Any], factors: NDArray[np.float64]) -> str:
    """Nodes for ``inputs @ weight``: divide, quantise each token by its largest value, multiply, scale back."""
    columns = weight.astype(np.float64) * factors[:, None]
    scales = np.maximum(np.abs(columns).max(axis=0), 1e-12) / WEIGHT_MAX
    integers = np.round(columns / scales).astype(np.int8)
    smoothed = graph.op("Mul", inputs, graph.weight(f"{name}.factors", (1 / factors).astype(np.float32)))
    axis = graph.weight("token.axis", np.array([-1], np.int64))
    largest = graph.op("ReduceMax", graph.op("Abs", smoothed), axis, keepdims=1)
    # A token of zeros alone has no scale: the smallest one keeps it zero.
    largest = graph.op("Max", largest, graph.weight("smallest", np.float32(1e-20)))
    step = graph.op("Mul", largest, graph.weight("step", np.float32(1 / ACTIVATION_MAX)))
    one, zero = graph.weight("one", np.float32(1)), graph.weight("zero", np.uint8(128))
    tokens = graph.op("QuantizeLinear", graph.op("Div", smoothed, step), one, zero)
    found = graph.op(
        "MatMulIntegerToFloat", tokens, graph.weight(f"{name}.int8", integers), one,
        graph.weight(f"{name}.scales", scales.astype(np.float32)), zero, domain="com.microsoft",
    )  # fmt: skip
    return graph.op("Mul", found, step)


def calibrate(
    layers: Sequence[str], largest: Mapping[str, NDArray[np.float64]], weights: Mapping[str, NDArray[Any]]
) -> Smoothing:
    """Smoothing for those of ``layers`` that are quantised."""
    return {name: rounded(smoothing_factors(largest[name], weights[name])) for name in layers if is_quantised(name)}
