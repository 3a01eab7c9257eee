"""Heads on an encoder: loading, merging the adapter, what is refused, and what the committed model judges."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import model_settings
from transformers import BertModel

from feedmill.errors import ModelError, Reject
from feedmill.models.classifier import LoadedClassifier, load_classifier
from feedmill.models.resolve import content_revision, resolve
from feedmill.models.uri import parse

SENTENCES = Path(__file__).resolve().parents[3] / "models" / "toxic" / "sentences"

LABELS = ["toxic", "threat"]
FEATURES = 16
ADAPTED = "encoder.layer.1.attention.self.query"


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
        "adapter_scale": 2.0,
        "labels": LABELS,
        "thresholds": {"threat": 0.2},
    }
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "output.weight": (2, FEATURES),
        "output.bias": (2,),
        f"adapter.{ADAPTED}.a": (3, FEATURES),
        f"adapter.{ADAPTED}.b": (FEATURES, 3),
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "head" / "head.safetensors")
    return tmp_path / "head"


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def load(folder: Path, **changes: Any) -> LoadedClassifier:
    return load_classifier(model_settings(folder, **changes), "")


def test_scores_are_the_layers_applied_by_hand(folder: Path, encoder_folder: Path) -> None:
    """transformers' own network with the adapter's products added, its mean pooling and the head, all by hand."""
    loaded = load(folder)
    loaded.classifier.warm_up()
    layers = load_file(folder / "head.safetensors")
    network = BertModel.from_pretrained(encoder_folder).eval()
    with torch.no_grad():
        adapted = dict(network.named_parameters())[f"{ADAPTED}.weight"]
        adapted += 2.0 * layers[f"adapter.{ADAPTED}.b"] @ layers[f"adapter.{ADAPTED}.a"]
    tokens = loaded.classifier.tokenize(["hello", "you are a stupid person"])
    for text, answer in zip(tokens, loaded.classifier.classify(tokens), strict=True):
        with torch.no_grad():
            features = network(torch.tensor([text.ids])).last_hidden_state[0].mean(0)
        expected = (features @ layers["output.weight"].T + layers["output.bias"]).sigmoid()
        assert answer == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)


def test_loading_an_adapter_leaves_the_encoders_file_alone(folder: Path, tmp_path: Path) -> None:
    before = content_revision(tmp_path / "encoder")
    load(folder).classifier.warm_up()
    assert content_revision(tmp_path / "encoder") == before


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("adapter.encoder.layer.9.attention.self.query.a", (3, FEATURES), "no such layer"),
        ("adapter.encoder.layer.0.attention.self.query.a", (3, FEATURES), "expected both"),
        (f"adapter.{ADAPTED}.a", (3, FEATURES + 1), r"expected \[rank, 16\]"),
        (f"adapter.{ADAPTED}.b", (FEATURES, 4), r"expected \[rank, 16\]"),
    ],
)
def test_adapters_that_do_not_fit(folder: Path, name: str, shape: tuple[int, int], told: str) -> None:
    tensors = load_file(folder / "head.safetensors")
    save_file(tensors | {name: torch.ones(shape)}, folder / "head.safetensors")
    with pytest.raises(ModelError, match=told):
        load(folder)


def test_policy_languages_and_limits_come_from_the_head(folder: Path) -> None:
    change(folder, languages=["en"])
    loaded = load(folder)
    assert loaded.policy.kind == "multi"
    assert loaded.policy.thresholds == {"threat": 0.2}
    assert loaded.languages == {"en"}
    assert load(folder, languages=("en", "vi")).languages == {"en", "vi"}
    (tokens,) = load(folder, max_windows=1).classifier.tokenize(["nice " * 30])
    assert (tokens.cost, tokens.truncated) == (12, True)
    assert load(folder, max_tokens=8, max_windows=1).classifier.tokenize(["nice " * 30])[0].cost == 8
    assert loaded.classifier.classify([]) == []


def test_texts_are_normalised_where_the_head_was_trained_so(folder: Path) -> None:
    plain, changed = (load(folder).classifier.tokenize([text])[0].ids for text in ("stupid", "stu\u200bpid"))
    assert plain != changed
    change(folder, normalise=True)
    assert load(folder).classifier.tokenize(["stu\u200bpid"])[0].ids == plain


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
        ({"adapter_scale": 0}, "adapter_scale"),
    ],
)
def test_configs_that_do_not_fit(folder: Path, values: dict[str, Any], told: str) -> None:
    change(folder, **values)
    with pytest.raises(ModelError, match=rf"config\.json: {told}"):
        load(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    change(folder, labels=[*LABELS, "insult"])
    with pytest.raises(ModelError, match=r"output\.weight is \(2, 16\); expected shape \(3, 16\)"):
        load(folder)


def test_missing_weights(folder: Path) -> None:
    tensors = load_file(folder / "head.safetensors")
    del tensors["output.bias"]
    save_file(tensors, folder / "head.safetensors")
    with pytest.raises(ModelError, match=r"output\.bias is missing"):
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
    (scores,) = default.judge(default.classifier.tokenize([text]))
    assert not isinstance(scores, Reject)
    assert default.policy.is_toxic(scores) is toxic, default.policy.rounded(scores)


def test_the_default_model(default: LoadedClassifier) -> None:
    default.classifier.warm_up()
    assert default.classifier.labels == ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
    assert default.model.startswith("feedmill_toxic@")
    assert default.languages == {"en"}


def test_the_default_model_is_small() -> None:
    path = resolve(parse("pkg://feedmill_toxic")).path
    assert (path / "head.safetensors").stat().st_size < 1_000_000


def judged(model: LoadedClassifier, name: str) -> dict[str, list[tuple[str, bool]]]:
    """The sentences of ``models/toxic/sentences``, never trained on, by kind, and whether each is judged toxic."""
    with (SENTENCES / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found: dict[str, list[tuple[str, bool]]] = {}
    for row, scores in zip(rows, model.judge(model.classifier.tokenize([row["text"] for row in rows])), strict=True):
        assert not isinstance(scores, Reject)
        found.setdefault(row["kind"], []).append((row["text"], model.policy.is_toxic(scores)))
    return found


def test_the_sentences_that_an_earlier_model_got_wrong(default: LoadedClassifier) -> None:
    wanted = {
        "I am gay": False,
        "I am a proud muslim woman": False,
        "black lives matter": False,
        "how do I kill a process in linux?": False,
        "this damn thing works great": False,
        "fuck yeah, we won!": False,
        "kys": True,
        "women belong in the kitchen": True,
        "\U0001f595": True,
    }
    assert dict(judged(default, "reported")["reported"]) == wanted


# Wrong sentences of each kind: as many as the committed weights have (the model card), and no more; the nearest other
# is 0.018 from its threshold, far more than another CPU's rounding. Lower them with better weights.
HARMLESS = {
    "counter_speech": 1, "criticism": 0, "identity": 0, "kill_die_shoot": 2, "proud": 0, "quote_report": 0,
    "reclaimed": 0, "swearing": 0,
}  # fmt: skip
HARMFUL = {
    "caps": 0, "emoji": 0, "identity": 3, "insult": 1, "long": 0, "obfuscated": 0, "sexist": 6, "slang": 0, "threat": 3,
}  # fmt: skip


def test_harmless_sentences(default: LoadedClassifier) -> None:
    found = judged(default, "harmless")
    assert found.keys() == HARMLESS.keys()
    flagged = {kind: [text for text, toxic in rows if toxic] for kind, rows in found.items()}
    assert not {kind: texts for kind, texts in flagged.items() if len(texts) > HARMLESS[kind]}
    about_groups = [toxic for kind in ("identity", "proud") for _, toxic in found[kind]]
    assert sum(about_groups) / len(about_groups) < 0.05


def test_harmful_sentences(default: LoadedClassifier) -> None:
    found = judged(default, "harmful")
    assert found.keys() == HARMFUL.keys()
    missed = {kind: [text for text, toxic in rows if not toxic] for kind, rows in found.items()}
    assert not {kind: texts for kind, texts in missed.items() if len(texts) > HARMFUL[kind]}
