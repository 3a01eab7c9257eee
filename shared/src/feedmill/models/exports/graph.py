"""The graph of our own forward pass (feedmill.models.bert) for ONNX Runtime, written node by node.

Packed like there: every linear layer sees the tokens of all texts as one matrix. Attention, a hundredth of the
arithmetic at the length of posts, runs over a rectangle that is gathered for it and undone behind it. Fused nodes are
written as such (domain com.microsoft), so that nothing is left to an optimiser. Needs onnx and torch: for exports only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, cat

from feedmill.models.bert import Bert, Classified, Layer
from feedmill.models.labels import Kind
from feedmill.models.pooling import Pooling

Array = NDArray[Any]
Smoothing = Mapping[str, NDArray[np.float64]]
"""Linear layers to quantise, each with the factors that its inputs are divided by: feedmill.models.exports.quantise."""

Finish = Callable[["Graph", str], str]
"""From the states of all tokens ``[tokens, size]`` to what is asked for, ``[texts, outputs]``; both are names."""

FUSED = "com.microsoft"
OPSET, FUSED_OPSET, IR_VERSION = 18, 1, 10
INPUTS: dict[str, tuple[int, list[str | int]]] = {
    "ids": (TensorProto.INT64, ["tokens"]),
    "positions": (TensorProto.INT64, ["tokens"]),
    "slots": (TensorProto.INT64, ["texts", "longest"]),
    "places": (TensorProto.INT64, ["tokens"]),
    "lengths": (TensorProto.INT32, ["texts"]),
    "shares": (TensorProto.FLOAT, ["texts", "longest", 1]),
}
"""See :func:`feedmill.models.exports.session.pack_feeds`."""


class Graph:
    """Collects nodes and weights (tensors, arrays, scalars). Every method answers the name of what it added."""

    def __init__(self, smoothing: Smoothing) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.linear_inputs: dict[str, str] = {}
        """What goes into each linear layer: a quantisation is calibrated by looking at it."""
        self._smoothing = smoothing

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, count=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, count: int, domain: str = "", **attributes: Any) -> list[str]:
        outputs = [f"{kind}_{len(self.nodes)}_{index}" for index in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs

    def weight(self, name: str, values: Any) -> str:
        array: Array = values.numpy() if isinstance(values, Tensor) else np.asarray(values)
        self.weights.setdefault(name, np.ascontiguousarray(array).reshape(array.shape))
        return name

    def linear(self, name: str, inputs: str, weight: Tensor) -> str:
        """``inputs @ weight.T``, quantised where the smoothing names it; its bias is the next node's."""
        self.linear_inputs[name] = inputs
        columns = weight.numpy().T
        if name in self._smoothing:
            from feedmill.models.exports.quantise import quantised_linear

            return quantised_linear(self, name, inputs, columns, self._smoothing[name])
        return self.op("MatMul", inputs, self.weight(name, columns))

    def norm_of_sum(
        self, name: str, left: str, right: str, bias: Tensor, norm: tuple[Tensor, Tensor], eps: float
    ) -> str:
        """The layer normalisation of ``left + right + bias``."""
        return self.op(
            "SkipLayerNormalization", left, right, self.weight(f"{name}.norm.weight", norm[0]),
            self.weight(f"{name}.norm.bias", norm[1]), self.weight(f"{name}.bias", bias), domain=FUSED, epsilon=eps,
        )  # fmt: skip

    def model(self, outputs: Mapping[str, int | None]) -> onnx.ModelProto:
        """The whole, with these outputs of so many columns; their rows are texts."""
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "feedmill",
            [info(name, kind, shape) for name, (kind, shape) in INPUTS.items()],
            [info(name, TensorProto.FLOAT, [None, size]) for name, size in outputs.items()],
            [numpy_helper.from_array(values, name) for name, values in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, FUSED_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="feedmill")


def build(bert: Bert, finish: Finish, smoothing: Smoothing) -> tuple[Graph, str]:
    """The graph of ``bert`` with what is built on it, and its output's name."""
    graph = Graph(smoothing)
    # There is one text, so every token is of the first type: its row is the same for all.
    positions = bert.positions if bert.type_row is None else bert.positions + bert.type_row
    words = graph.op("Gather", graph.weight("words", bert.words), "ids")
    states = graph.op("Add", words, graph.op("Gather", graph.weight("positions.weight", positions), "positions"))
    norm = [graph.weight(f"embeddings.norm.{index}", part) for index, part in enumerate(bert.norm)]
    states = graph.op("LayerNormalization", states, *norm, axis=-1, epsilon=bert.shape.epsilon)
    for index, layer in enumerate(bert.layers):
        states = _layer(graph, bert, f"layer.{index}", layer, states)
    return graph, finish(graph, states)


def _layer(graph: Graph, bert: Bert, name: str, layer: Layer, states: str) -> str:
    shape = bert.shape
    attended = graph.linear(f"{name}.attended", _attend(graph, bert, name, layer, states), layer.attended[0])
    states = graph.norm_of_sum(
        f"{name}.attended", attended, states, layer.attended[1], layer.attended_norm, shape.epsilon
    )
    inner = graph.linear(f"{name}.up", states, layer.up[0])
    inner = _activate(graph, shape.activation, inner, graph.weight(f"{name}.up.bias", layer.up[1]))
    outer = graph.linear(f"{name}.down", inner, layer.down[0])
    return graph.norm_of_sum(f"{name}.down", outer, states, layer.down[1], layer.norm, shape.epsilon)


def _attend(graph: Graph, bert: Bert, name: str, layer: Layer, states: str) -> str:
    parts = (layer.query, layer.key, layer.value)
    projected = graph.linear(f"{name}.qkv", states, cat([weight for weight, _ in parts]))
    rectangle = graph.op("Gather", projected, "slots")
    query, key, value = graph.ops("Split", rectangle, count=3, axis=2, num_outputs=3)
    bias = graph.weight(f"{name}.qkv.bias", cat([bias for _, bias in parts]))
    found = graph.op("MultiHeadAttention", query, key, value, bias, "lengths", domain=FUSED, num_heads=bert.shape.heads)
    flat = graph.op("Reshape", found, graph.weight("flat", np.array([-1, bert.shape.size], np.int64)))
    return graph.op("Gather", flat, "places")


def _activate(graph: Graph, activation: str, inputs: str, bias: str) -> str:
    match activation:
        case "gelu":
            return graph.op("BiasGelu", inputs, bias, domain=FUSED)
        case "gelu_new" | "gelu_pytorch_tanh":
            return graph.op("FastGelu", inputs, bias, domain=FUSED)
    inputs = graph.op("Add", inputs, bias)
    if activation == "relu":
        return graph.op("Relu", inputs)
    return graph.op("Mul", inputs, graph.op("Sigmoid", inputs))  # silu, also called swish


def pooled(graph: Graph, states: str, pooling: Pooling) -> str:
    """What :class:`~feedmill.models.pooling.Pooling` does."""
    rows = []
    rectangle = graph.op("Gather", states, "slots")  # places without a token hold the text's first one
    axis = graph.weight("texts.axis", np.array([1], np.int64))
    for mode in pooling.modes:
        if mode == "cls":
            rows.append(graph.op("Gather", rectangle, graph.weight("first", np.int64(0)), axis=1))
        elif mode == "max":
            rows.append(graph.op("ReduceMax", rectangle, axis, keepdims=0))
        else:
            rows.append(graph.op("ReduceSum", graph.op("Mul", rectangle, "shares"), axis, keepdims=0))
    whole = graph.op("Concat", *rows, axis=-1) if len(rows) > 1 else rows[0]
    return graph.op("LpNormalization", whole, axis=-1, p=2) if pooling.normalise else whole


def classified(graph: Graph, states: str, head: Classified, kind: Kind, family: str) -> str:
    """What :class:`~feedmill.models.bert.Classified` does, and then probabilities."""
    first = pooled(graph, states, Pooling(("cls",), normalise=False))
    inner = graph.op("Relu" if family == "distilbert" else "Tanh", affine(graph, "head.first", first, head.first))
    return probabilities(graph, affine(graph, "head.last", inner, head.last), kind)


def affine(graph: Graph, name: str, inputs: str, parameters: tuple[Tensor, Tensor]) -> str:
    """A linear layer of the head, never quantised."""
    weight, bias = (graph.weight(f"{name}.{index}", part) for index, part in enumerate(parameters))
    return graph.op("Gemm", inputs, weight, bias, transB=1)


def probabilities(graph: Graph, logits: str, kind: Kind) -> str:
    return graph.op("Sigmoid", logits) if kind == "multi" else graph.op("Softmax", logits, axis=-1)
