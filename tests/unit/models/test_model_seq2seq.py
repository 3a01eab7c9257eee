"""Text-to-text classifiers: the likelihood of each label, as generation would have it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import LABEL_WRITER_TEXTS, model_settings, t5_model, t5_tokenizer
from transformers import T5ForConditionalGeneration

from feedmill.errors import ModelError, Reject, SettingsError
from feedmill.models.classifier import LoadedClassifier, load_classifier

TEXTS = list(LABEL_WRITER_TEXTS)


def load(folder: Path, **changes: object) -> LoadedClassifier:
    return load_classifier(model_settings(folder, **changes), "")


def scores_of(loaded: LoadedClassifier, texts: list[str]) -> list[dict[str, float]]:
    answers = loaded.classifier.classify(loaded.classifier.tokenize(texts))
    return [answer for answer in answers if isinstance(answer, dict)]


def test_vihatet5_needs_no_settings(label_writer_folder: Path) -> None:
    loaded = load(label_writer_folder)
    loaded.classifier.warm_up()
    assert loaded.classifier.labels == ("CLEAN", "OFFENSIVE", "HATE")
    assert loaded.policy.toxic == {"OFFENSIVE", "HATE"}
    for (text, label), scores in zip(LABEL_WRITER_TEXTS.items(), scores_of(loaded, TEXTS), strict=True):
        assert max(scores, key=scores.__getitem__) == label, text
        assert sum(scores.values()) == pytest.approx(1)
        assert loaded.policy.is_toxic(scores) == (label != "CLEAN")


def test_the_best_label_is_what_greedy_generation_writes(label_writer_folder: Path) -> None:
    loaded = load(label_writer_folder)
    plain = T5ForConditionalGeneration.from_pretrained(label_writer_folder).eval()
    for text, scores in zip(TEXTS, scores_of(loaded, TEXTS), strict=True):
        ids = torch.tensor([t5_tokenizer().encode(f"hate-speech-detection: {text}").ids])
        written = t5_tokenizer().decode(plain.generate(ids, max_new_tokens=4)[0].tolist(), skip_special_tokens=True)
        assert max(scores, key=scores.__getitem__) == written.replace("<pad>", "").replace("</s>", "").strip()


def test_scores_are_the_likelihoods_of_the_labels(label_writer_folder: Path) -> None:
    """Labels of several lengths, against transformers' own loss."""
    labels = ("CLEAN", "HATE SPEECH", "OFFENSIVE")
    loaded = load(label_writer_folder, clean_labels="CLEAN", toxic_labels="HATE SPEECH,OFFENSIVE", text_prefix="hello ")
    plain = T5ForConditionalGeneration.from_pretrained(label_writer_folder).eval()
    (scores,) = scores_of(loaded, ["nice"])
    ids = torch.tensor([t5_tokenizer().encode("hello nice").ids])
    likelihoods = []
    for label in labels:
        target = torch.tensor([t5_tokenizer().encode(label).ids])
        with torch.no_grad():
            likelihoods.append(-plain(input_ids=ids, labels=target).loss * target.shape[1])
    expected = torch.stack(likelihoods).softmax(0).tolist()
    assert scores == pytest.approx(dict(zip(labels, expected, strict=True)), abs=1e-5)


def test_a_text_is_scored_alike_in_any_company(label_writer_folder: Path) -> None:
    loaded = load(label_writer_folder)
    texts = [*TEXTS, "you are a good person " * 8, *TEXTS, ""]
    for text, scores in zip(texts, scores_of(loaded, texts), strict=True):
        assert scores == pytest.approx(scores_of(loaded, [text])[0], abs=1e-4)


def test_a_model_that_would_write_something_else(tmp_path: Path) -> None:
    folder = tmp_path / "ViHateT5-untrained"
    t5_model().save_pretrained(folder)
    t5_tokenizer().save(str(folder / "tokenizer.json"))
    loaded = load(folder)
    (answer,) = loaded.classifier.classify(loaded.classifier.tokenize(["hello"]))
    assert isinstance(answer, Reject)
    assert answer.reason == "model_no_label"
    with pytest.raises(ModelError, match="no usable answer"):
        loaded.classifier.warm_up()


@pytest.fixture
def unnamed_folder(label_writer_folder: Path, tmp_path: Path) -> Path:
    """The same model in a folder whose name says nothing."""
    return Path(shutil.copytree(label_writer_folder, tmp_path / "model"))


def test_an_unknown_model_needs_settings(unnamed_folder: Path) -> None:
    with pytest.raises(SettingsError, match="FEEDMILL_TOXIC_LABELS and FEEDMILL_CLEAN_LABELS"):
        load(unnamed_folder)
    with pytest.raises(SettingsError, match="FEEDMILL_TOXIC_LABELS and FEEDMILL_CLEAN_LABELS"):
        load(unnamed_folder, toxic_labels="HATE")


@pytest.mark.parametrize(
    "settings",
    [
        {"text_prefix": "hate-speech-detection:"},
        {"text_prefix": "hate-speech-detection: ", "toxic_labels": "HATE"},
        {"text_prefix": "hate-speech-detection : ", "toxic_labels": "OFFENSIVE,HATE", "clean_labels": "CLEAN"},
    ],
)
def test_settings_make_an_unknown_model_known(unnamed_folder: Path, settings: dict[str, str]) -> None:
    loaded = load(unnamed_folder, **settings)
    (scores,) = scores_of(loaded, ["stupid person"])
    assert max(scores, key=scores.__getitem__) == "HATE"
    assert loaded.policy.is_toxic(scores)


def test_corrupt_weights(unnamed_folder: Path) -> None:
    (unnamed_folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="can't load this model"):
        load(unnamed_folder, text_prefix="hate-speech-detection: ")
