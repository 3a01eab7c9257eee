"""Sequence classifiers, loaded and asked as the toxic worker does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import WORDS, MakeClassifier, bert_config, bert_tokenizer, model_settings
from transformers import BertForSequenceClassification, BertModel

from feedmill.errors import ModelError, Reject, SettingsError
from feedmill.models.classifier import LoadedClassifier, load_classifier

JIGSAW = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
TEXTS = ["hello", "you are a stupid person", "nice", "the post about gardens and trains " * 3, ""]


def load(folder: Path, **changes: object) -> LoadedClassifier:
    return load_classifier(model_settings(folder, **changes), "pkg://not_asked_for")


def scores_of(loaded: LoadedClassifier, texts: list[str]) -> list[dict[str, float]]:
    answers = loaded.classifier.classify(loaded.classifier.tokenize(texts))
    assert not any(isinstance(answer, Reject) for answer in answers)
    return [answer for answer in answers if isinstance(answer, dict)]


@pytest.mark.parametrize(
    ("labels", "problem_type"),
    [(JIGSAW, "multi_label_classification"), (JIGSAW, None), (["CLEAN", "OFFENSIVE", "HATE"], None)],
)
def test_scores_equal_the_plain_forward(
    make_classifier: MakeClassifier, labels: list[str], problem_type: str | None
) -> None:
    folder = make_classifier(labels, problem_type)
    loaded = load(folder)
    plain = BertForSequenceClassification.from_pretrained(folder).eval()
    for text, scores in zip(TEXTS, scores_of(loaded, TEXTS), strict=True):
        with torch.no_grad():
            logits = plain(torch.tensor([bert_tokenizer().encode(text).ids])).logits[0]
        expected = logits.sigmoid() if labels == JIGSAW else logits.softmax(-1)
        assert list(scores) == labels
        assert list(scores.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_single_label_scores_share_one(make_classifier: MakeClassifier) -> None:
    loaded = load(make_classifier(["neutral", "toxic"]))
    assert loaded.policy.kind == "single"
    assert all(sum(scores.values()) == pytest.approx(1) for scores in scores_of(loaded, TEXTS))


def test_the_model_is_named_without_its_path(make_classifier: MakeClassifier) -> None:
    loaded = load(make_classifier(JIGSAW))
    assert loaded.model.startswith("classifier@")
    assert loaded.classifier.labels == tuple(JIGSAW)


def test_the_default_is_taken_where_no_model_is_set(make_classifier: MakeClassifier) -> None:
    folder = make_classifier(JIGSAW)
    assert load_classifier(model_settings(), f"file://{folder}").model == load(folder).model


def test_no_texts(make_classifier: MakeClassifier) -> None:
    loaded = load(make_classifier(JIGSAW))
    loaded.classifier.warm_up()
    assert loaded.classifier.classify([]) == []


def test_generic_labels_need_a_setting(make_classifier: MakeClassifier) -> None:
    folder = make_classifier(["LABEL_0", "LABEL_1"])
    with pytest.raises(SettingsError, match="FEEDMILL_TOXIC_LABELS"):
        load(folder)
    assert load(folder, toxic_labels="LABEL_1").policy.toxic == {"LABEL_1"}


def test_positions_limit_the_length(make_classifier: MakeClassifier) -> None:
    loaded = load(make_classifier(JIGSAW), max_tokens=4096)
    (tokens,) = loaded.classifier.tokenize(["nice " * 100])
    assert (len(tokens.ids), tokens.truncated) == (40, False)
    assert tokens.further
    assert loaded.judge([tokens])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=36).map(" ".join), min_size=1, max_size=60))
def test_a_text_is_scored_alike_in_any_company(tiny_multi: LoadedClassifier, texts: list[str]) -> None:
    together = scores_of(tiny_multi, texts)
    alone = [scores_of(tiny_multi, [text])[0] for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.fixture
def tiny_multi(make_classifier: MakeClassifier) -> LoadedClassifier:
    return load(make_classifier(JIGSAW))


def test_scores_that_are_not_finite_are_rejected(make_classifier: MakeClassifier) -> None:
    folder = make_classifier(JIGSAW)
    model = BertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[4 + WORDS.index("stupid")] = float("nan")
    model.save_pretrained(folder)
    loaded = load(folder)
    fine, broken, fine_too = loaded.classifier.classify(loaded.classifier.tokenize(["hello", "stupid", "nice"]))
    assert isinstance(fine, dict)
    assert isinstance(fine_too, dict)
    assert isinstance(broken, Reject)
    assert broken.reason == "model_not_finite"


def test_a_model_without_its_classification_layer_is_refused(make_classifier: MakeClassifier) -> None:
    folder = make_classifier(JIGSAW)
    BertModel(bert_config()).save_pretrained(folder / "body")
    (folder / "body" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lack .*classifier"):
        load(folder)


def test_a_model_that_is_no_classifier(encoder_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"BertModel is no classifier; expected .*ForSequenceClassification"):
        load(encoder_folder)


def test_a_regression_is_refused(make_classifier: MakeClassifier) -> None:
    with pytest.raises(ModelError, match="a regression"):
        load(make_classifier(["toxic"], "regression"))


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 4096])
def test_corrupt_weights(make_classifier: MakeClassifier, content: bytes) -> None:
    folder = make_classifier(JIGSAW)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="can't load this model"):
        load(folder)


def test_cut_off_weights(make_classifier: MakeClassifier) -> None:
    folder = make_classifier(JIGSAW)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="can't load this model"):
        load(folder)


def test_an_unknown_architecture(make_classifier: MakeClassifier) -> None:
    folder = make_classifier(JIGSAW)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "not-built-in"}))
    with pytest.raises(ModelError, match="can't load this model"):
        load(folder)


def test_no_such_device(make_classifier: MakeClassifier) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    folder = make_classifier(JIGSAW)
    with pytest.raises(SettingsError, match="FEEDMILL_DEVICE"):
        load_classifier(model_settings(folder).model_copy(update={"device": "cuda"}), "")
