"""Heads on an encoder: loading, what is refused, and that the committed one judges plain sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import model_settings

from feedmill.errors import ModelError, Reject
from feedmill.models.classifier import LoadedClassifier, load_classifier
from feedmill.models.resolve import content_revision

LABELS = ["toxic", "threat"]
FEATURES = 16


@pytest.fixture
def folder(encoder_folder: Path, tmp_path: Path) -> Path:
    """A random head on the tiny encoder."""
    encoder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    config = {
        "model_type": "feedmill-head",
        "encoder": f"file://{encoder}",
        "encoder_revision": content_revision(encoder),
        "pooling": ["mean"],
        "max_tokens": 12,
        "labels": LABELS,
        "thresholds": {"threat": 0.2},
    }
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(1)
    shapes = {"hidden.weight": (5, FEATURES), "hidden.bias": (5,), "output.weight": (2, 5), "output.bias": (2,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "head" / "head.safetensors")
    return tmp_path / "head"


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def load(folder: Path, **changes: Any) -> LoadedClassifier:
    return load_classifier(model_settings(folder, **changes), "")


def test_scores_are_the_layers_applied_by_hand(folder: Path) -> None:
    loaded = load(folder)
    loaded.classifier.warm_up()
    tokens = loaded.classifier.tokenize(["hello", "you are a stupid person"])
    features = loaded.classifier._encoder.encode(tokens)  # type: ignore[attr-defined]
    layers = {name: tensor.numpy() for name, tensor in load_file(folder / "head.safetensors").items()}
    hidden = np.maximum(features @ layers["hidden.weight"].T + layers["hidden.bias"], 0)
    expected = 1 / (1 + np.exp(-(hidden @ layers["output.weight"].T + layers["output.bias"])))
    for answer, row in zip(loaded.classifier.classify(tokens), expected, strict=True):
        assert answer == pytest.approx(dict(zip(LABELS, row.tolist(), strict=True)), abs=1e-5)


def test_policy_and_limits_come_from_the_head(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.policy.kind == "multi"
    assert loaded.policy.thresholds == {"threat": 0.2}
    (tokens,) = loaded.classifier.tokenize(["nice " * 30])
    assert (tokens.cost, tokens.truncated) == (12, True)
    assert load(folder, max_tokens=8).classifier.tokenize(["nice " * 30])[0].cost == 8
    assert loaded.classifier.classify([]) == []


def test_another_encoder_is_refused(folder: Path) -> None:
    change(folder, encoder_revision="0123456789ab")
    with pytest.raises(ModelError, match=r"trained on .* at revision 0123456789ab"):
        load(folder)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"labels": []}, "labels"),
        ({"pooling": ["sum"]}, "pooling: unknown"),
        ({"thresholds": {"rude": 0.5}}, "thresholds: unknown"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"layers": 3}, "layers"),
    ],
)
def test_configs_that_do_not_fit(folder: Path, values: dict[str, Any], told: str) -> None:
    change(folder, **values)
    with pytest.raises(ModelError, match=rf"config\.json: {told}"):
        load(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    change(folder, labels=[*LABELS, "insult"])
    with pytest.raises(ModelError, match=r"output\.weight is \(2, 5\); expected shape \(3, 5\)"):
        load(folder)


def test_missing_weights(folder: Path) -> None:
    tensors = load_file(folder / "head.safetensors")
    del tensors["hidden.weight"]
    save_file(tensors, folder / "head.safetensors")
    with pytest.raises(ModelError, match=r"hidden\.weight is missing"):
        load(folder)


def test_corrupt_weights(folder: Path) -> None:
    (folder / "head.safetensors").write_bytes(b"\x00" * 50)
    with pytest.raises(ModelError, match="no readable safetensors"):
        load(folder)


TOXIC = [
    "You are a stupid idiot",
    "Fuck you, asshole",
    "I will kill you",
    "Shut up, you worthless piece of garbage",
    "I hope you die",
    "You disgusting pig",
    "What a moron",
    "Go fuck yourself",
    "I will find you and break your neck",
    "Muslims are vermin and should be wiped out",
]
CLEAN = [
    "Thank you for this lovely post",
    "This is a test message",
    "Does anyone know a good recipe for lentil soup?",
    "The train to Prague leaves at nine",
    "I disagree, the first album was better",
    "My neighbour is a Muslim and plays chess with me",
    "Congratulations on your wedding!",
    "Kill the process and restart the server",
    "The garden is full of bees this spring",
    "Version 2.1 fixes the login page",
]


@pytest.fixture(scope="module")
def default() -> LoadedClassifier:
    return load_classifier(model_settings(), "pkg://feedmill_toxic")


@pytest.mark.parametrize(("text", "toxic"), [*((text, True) for text in TOXIC), *((text, False) for text in CLEAN)])
def test_the_default_model_judges_plain_sentences(default: LoadedClassifier, text: str, toxic: bool) -> None:
    (scores,) = default.classifier.classify(default.classifier.tokenize([text]))
    assert not isinstance(scores, Reject)
    assert default.policy.is_toxic(scores) is toxic, default.policy.rounded(scores)


def test_the_default_model(default: LoadedClassifier) -> None:
    default.classifier.warm_up()
    assert default.classifier.labels == ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
    assert default.model.startswith("feedmill_toxic@")
