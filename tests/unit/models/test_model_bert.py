"""Our own forward pass against transformers' plain one, over random configs and random mixes of lengths."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import bert_tokenizer, model_settings
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from feedmill.models.bert import Bert
from feedmill.models.packed import pack, run_packed
from feedmill.models.pooling import Pooling
from feedmill.models.resolve import resolve
from feedmill.models.runtime import Runtime
from feedmill.models.sequence import open_sequence
from feedmill.models.shape import read_shape
from feedmill.models.tokens import Tokens
from feedmill.models.torch_encoder import open_network
from feedmill.models.uri import parse
from feedmill.models.weights import Shelf, map_weights

VOCABULARY, POSITIONS, PAD = 50, 40, 1
CPU = Runtime(torch.device("cpu"), 1024, lanes=2)
CONFIGS: dict[str, type[PretrainedConfig]] = {
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "xlm-roberta": XLMRobertaConfig,
    "camembert": CamembertConfig,
    "distilbert": DistilBertConfig,
}


@dataclass(frozen=True)
class Plain:
    """A random model as transformers runs it: one text at a time, nothing padded."""

    folder: Path
    network: Any

    def states(self, ids: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            states: torch.Tensor = self.network(torch.tensor([ids])).last_hidden_state[0]
        return states


def tiny_config(family: str, activation: str, heads: int, layers: int, types: int) -> PretrainedConfig:
    common = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS + PAD + 1, "pad_token_id": PAD}
    if family == "distilbert":
        sizes = {"dim": 24, "n_layers": layers, "n_heads": heads, "hidden_dim": 40, "activation": activation}
        return DistilBertConfig(**common, **sizes, initializer_range=0.3)
    sizes = {"hidden_size": 24, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 40}
    return CONFIGS[family](
        **common, **sizes, hidden_act=activation, type_vocab_size=types, initializer_range=0.3, layer_norm_eps=1e-5
    )


configs = st.builds(
    tiny_config,
    st.sampled_from(sorted(CONFIGS)),
    st.sampled_from(["gelu", "gelu_new", "relu"]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 2]),
)
# The padding id among them: a text can spell it out, and RoBERTa gives it no position.
texts = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=POSITIONS), min_size=1, max_size=12
).filter(lambda rows: all(any(token != PAD for token in row) for row in rows))
modes = st.lists(st.sampled_from(["cls", "max", "mean"]), min_size=1, max_size=3, unique=True).map(tuple)


def made(config: PretrainedConfig, folder: Path) -> Plain:
    torch.manual_seed(7)
    network = AutoModel.from_config(config, attn_implementation="eager").eval()
    network.save_pretrained(folder)
    return Plain(folder, network)


@settings(max_examples=40, deadline=None)
@given(configs, texts, modes, st.booleans())
def test_vectors_equal_the_plain_forward(
    config: PretrainedConfig, rows: list[list[int]], pooled: tuple[str, ...], normalise: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        plain = made(config, Path(name))
        assert read_shape(json.loads((plain.folder / "config.json").read_text())) is not None
        network = open_network(resolve(parse(f"file://{name}")), CPU, Pooling(pooled, normalise))
        found = network.forward([Tokens(row, truncated=False) for row in rows])
    for row, vector in zip(rows, found, strict=True):
        states = plain.states(row)
        parts = {"cls": states[0], "max": states.amax(0), "mean": states.mean(0)}
        expected = torch.cat([parts[mode] for mode in pooled])
        expected = torch.nn.functional.normalize(expected, dim=-1) if normalise else expected
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_scores_equal_the_plain_forward(family: str, tmp_path: Path) -> None:
    torch.manual_seed(9)
    config = tiny_config(family, "gelu", 2, 2, 1)
    config.id2label = {0: "clean", 1: "toxic", 2: "threat"}
    config.problem_type = "multi_label_classification"
    plain = AutoModelForSequenceClassification.from_config(config).eval()
    plain.save_pretrained(tmp_path)
    bert_tokenizer().save(str(tmp_path / "tokenizer.json"))
    classifier, _ = open_sequence(resolve(parse(f"file://{tmp_path}")), model_settings(tmp_path))
    assert classifier.labels == ("clean", "toxic", "threat")
    rows = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8], [11, 12, 13]]
    for row, scores in zip(rows, classifier.classify([Tokens(row, truncated=False) for row in rows]), strict=True):
        with torch.no_grad():
            expected = plain(torch.tensor([row])).logits[0].sigmoid()
        assert isinstance(scores, dict)
        assert list(scores.values()) == pytest.approx(expected.tolist(), abs=1e-4)


def test_an_empty_text_is_one_padding_token(tmp_path: Path) -> None:
    plain = made(tiny_config("bert", "gelu", 2, 1, 2), tmp_path)
    shape = read_shape(json.loads((tmp_path / "config.json").read_text()))
    assert shape is not None
    bert = Bert(shape, Shelf(map_weights(tmp_path), tmp_path))
    with torch.inference_mode():
        states = bert(pack([[], [4]], shape.pad_id))
    np.testing.assert_allclose(states, torch.cat([plain.states([PAD]), plain.states([4])]), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "mpnet"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"quantization_config": {"bits": 4}},
        {"hidden_act": "mish"},
        {"num_attention_heads": 5},
    ],
)
def test_what_it_does_not_know_goes_through_transformers(change: dict[str, Any]) -> None:
    config = tiny_config("bert", "gelu", 2, 1, 2).to_dict()
    assert read_shape(config) is not None
    assert read_shape(config | change) is None


def test_names_of_old_checkpoints(tmp_path: Path) -> None:
    """LayerNorm.gamma and .beta, and the prefix of a whole model."""
    from safetensors.torch import load_file, save_file

    made(tiny_config("bert", "gelu", 2, 1, 2), tmp_path)
    new = load_file(tmp_path / "model.safetensors")
    old = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in new.items()
    }
    save_file(old, tmp_path / "model.safetensors")
    found = map_weights(tmp_path, ("bert.",))
    assert found.keys() == new.keys()


lengths = st.lists(st.integers(0, 1500), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(lengths, st.integers(1, 3))
def test_rows_come_in_the_callers_order(sizes: list[int], lanes: int) -> None:
    """Texts over several portions, portions over several threads."""
    rows = [[size] * size for size in sizes]
    found = run_packed(rows, 0, lambda packed: packed.firsts(packed.ids[:, None]), lanes)
    assert found[:, 0].tolist() == sizes
