"""Exports for ONNX Runtime: the same numbers as on torch, noticed when they are of other weights, and without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model_bert import configs, made, modes, texts, tiny_config
from tiny_models import WORDS, MakeClassifier, bert_tokenizer, model_settings
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from feedmill.errors import ModelError, SettingsError
from feedmill.models.classifier import load_classifier
from feedmill.models.encoder import load_encoder
from feedmill.models.exports.command import export_onnx
from feedmill.models.exports.making import Limits, make_export, own_texts
from feedmill.models.exports.record import Precision, Task, read_export
from feedmill.models.tokens import Tokens
from feedmill.models.uri import parse
from feedmill_encode import DEFAULT_MODEL as ENCODER
from feedmill_toxic import DEFAULT_MODEL as CLASSIFIER

SENTENCES = [f"{first} {second} person" for first in WORDS for second in WORDS[:4]]
LOOSE = Limits(floor=0.0)


def export(task: Task, folder: Path, root: Path, precision: Precision = "fp32", limits: Limits = LOOSE) -> Path:
    return make_export(task, parse(f"file://{folder}"), precision, root, SENTENCES, limits)[0]


def on_onnx(root: Path, precision: str = "fp32") -> dict[str, str]:
    return {"backend": "onnx", "onnx_dir": str(root), "onnx_precision": precision}


def sentence_encoder(folder: Path, modes: tuple[str, ...], normalise: bool) -> None:
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    found = [{"type": f"sentence_transformers.models.{name}", "path": name} for name in modules]
    (folder / "modules.json").write_text(json.dumps(found))
    flags = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens"}
    (folder / "Pooling").mkdir()
    (folder / "Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{flags[mode]}": True for mode in modes}))


@settings(max_examples=25, deadline=None)
@given(configs, texts, modes, st.booleans())
def test_vectors_equal_torch(
    config: PretrainedConfig, rows: list[list[int]], pooled: tuple[str, ...], normalise: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        made(config, folder)
        bert_tokenizer().save(str(folder / "tokenizer.json"))
        sentence_encoder(folder, pooled, normalise)
        export("encode", folder, Path(name))
        batch = [Tokens(row, truncated=False) for row in rows]
        expected = load_encoder(model_settings(folder), ENCODER)
        found = load_encoder(model_settings(folder, **on_onnx(Path(name))), ENCODER)
        np.testing.assert_allclose(found.encode(batch), expected.encode(batch), atol=1e-4)
        assert found.space == expected.space


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_scores_equal_torch(family: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(9)
    config = tiny_config(family, "gelu", 2, 2, 1)
    config.id2label = {0: "clean", 1: "toxic", 2: "threat"}
    config.problem_type = f"{kind}_label_classification"
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "model")
    bert_tokenizer().save(str(tmp_path / "model" / "tokenizer.json"))
    export("toxic", tmp_path / "model", tmp_path)
    expected = load_classifier(model_settings(tmp_path / "model"), CLASSIFIER)
    found = load_classifier(model_settings(tmp_path / "model", **on_onnx(tmp_path)), CLASSIFIER)
    assert (found.policy, found.model, found.languages) == (expected.policy, expected.model, expected.languages)
    long = " ".join(WORDS * 5)  # several windows
    batch = ["you are stupid", long, "hello", "", "a good person"]
    scores = [loaded.judge(loaded.classifier.tokenize(batch)) for loaded in (found, expected)]
    for left, right in zip(*scores, strict=True):
        assert isinstance(left, dict)
        assert left == pytest.approx(right, abs=1e-4)


@pytest.mark.parametrize("task", ["encode", "toxic"])
def test_the_default_models_equal_torch(task: Task, tmp_path: Path) -> None:
    ref = parse(ENCODER if task == "encode" else CLASSIFIER)
    folder, made_export = make_export(task, ref, "fp32", tmp_path, own_texts()[::20], Limits())
    assert made_export.measured["largest difference"] < 1e-4
    assert read_export(folder, ref, task, "fp32") == made_export


def test_int8_of_the_default_encoder_is_another_space_and_close(tmp_path: Path) -> None:
    _, made_export = make_export("encode", parse(ENCODER), "int8", tmp_path, own_texts()[::4], Limits(floor=0.9))
    assert made_export.measured["cosine least"] > 0.99
    exact = load_encoder(model_settings(ENCODER), ENCODER)
    close = load_encoder(model_settings(ENCODER, **on_onnx(tmp_path, "int8")), ENCODER)
    assert close.space != exact.space
    assert "-int8-" in close.space
    assert close.model.startswith(f"{exact.model}+int8-")
    assert close.revision != exact.revision
    # Each token has its own scale, so a text's vector is the same whatever it shares a batch with.
    alone, beside = close.tokenize(["a post"]), close.tokenize(["a post", *own_texts()[:20]])
    np.testing.assert_allclose(close.encode(alone)[0], close.encode(beside)[0], atol=1e-5)


def test_a_text_prefix_makes_a_space_of_its_own(encoder_folder: Path, tmp_path: Path) -> None:
    export("encode", encoder_folder, tmp_path)
    plain = load_encoder(model_settings(encoder_folder, **on_onnx(tmp_path)), ENCODER)
    prefixed = load_encoder(model_settings(encoder_folder, text_prefix="post: ", **on_onnx(tmp_path)), ENCODER)
    on_torch = load_encoder(model_settings(encoder_folder, text_prefix="post: "), ENCODER)
    assert plain.space != prefixed.space == on_torch.space


def test_a_missing_export_names_the_command(encoder_folder: Path, tmp_path: Path) -> None:
    wanted = r"feedmill-encode export-onnx --model file://.* --precision int8"
    with pytest.raises(ModelError, match=wanted):
        load_encoder(model_settings(encoder_folder, **on_onnx(tmp_path, "int8")), ENCODER)


def test_an_export_of_other_weights_is_noticed(encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(encoder_folder, folder)
    export("encode", folder, tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"layer_norm_eps": 1e-3}))
    with pytest.raises(ModelError, match=r"was made of revision [0-9a-f]{12}; make it with"):
        load_encoder(model_settings(folder, **on_onnx(tmp_path)), ENCODER)
    export("encode", folder, tmp_path)
    load_encoder(model_settings(folder, **on_onnx(tmp_path)), ENCODER).warm_up()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "tokenizer.json"])
def test_a_damaged_file_is_noticed(name: str, encoder_folder: Path, tmp_path: Path) -> None:
    file = export("encode", encoder_folder, tmp_path) / name
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="SHA-256 differs"):
        load_encoder(model_settings(encoder_folder, **on_onnx(tmp_path)), ENCODER)


def test_a_bad_record_names_the_field(encoder_folder: Path, tmp_path: Path) -> None:
    record = export("encode", encoder_folder, tmp_path) / "export.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"outputs": 0, "code": "x"}))
    with pytest.raises(ModelError, match=r"(?s)outputs: .*code: "):
        load_encoder(model_settings(encoder_folder, **on_onnx(tmp_path)), ENCODER)


def test_below_the_floor_nothing_is_kept(encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"overlap@10 is 0\.\d+; expected at least 1 \(--floor\)"):
        export("encode", encoder_folder, tmp_path, "int8", Limits(floor=1.0))
    with pytest.raises(ModelError, match=r"differs from torch"):
        export("encode", encoder_folder, tmp_path, "fp32", Limits(tolerance=0.0))
    assert list(tmp_path.iterdir()) == []


def test_what_can_not_be_exported(label_writer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="t5 can't be exported; expected bert, roberta"):
        export("toxic", label_writer_folder, tmp_path)


def test_onnx_has_no_cuda(encoder_folder: Path, tmp_path: Path) -> None:
    wanted = model_settings(encoder_folder, **on_onnx(tmp_path)).model_copy(update={"device": "cuda"})
    with pytest.raises(SettingsError, match="FEEDMILL_DEVICE: cuda"):
        load_encoder(wanted, ENCODER)


WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "onnx", "safetensors", "huggingface_hub"):
    sys.modules[name] = None  # importing it fails
import feedmill_encode.worker, feedmill_toxic.worker
from feedmill.models.classifier import load_classifier
from feedmill.models.encoder import load_encoder
from feedmill.settings import ModelSettings
encoder, classifier, root = sys.argv[1:]
own = {"backend": "onnx", "onnx_dir": root}
load_encoder(ModelSettings(model=encoder, **own), "").warm_up()
load_classifier(ModelSettings(model=classifier, **own), "").classifier.warm_up()
print("fine")
"""


def test_it_runs_without_torch_and_without_the_weights(
    encoder_folder: Path, make_classifier: MakeClassifier, tmp_path: Path
) -> None:
    classifier = make_classifier(["clean", "toxic"])
    folder = tmp_path / "model"
    shutil.copytree(encoder_folder, folder)
    export("encode", folder, tmp_path)
    export("toxic", classifier, tmp_path)
    shutil.rmtree(folder)
    command = [sys.executable, "-c", WITHOUT_TORCH, f"file://{folder}", f"file://{classifier}", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "fine"), done.stderr


def test_the_command_prints_what_it_measured(
    encoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "texts.txt"
    own.write_text("\n".join(SENTENCES))
    arguments = ["--model", f"file://{encoder_folder}", "--out", str(tmp_path), "--texts", str(own)]
    assert export_onnx("encode", ENCODER, arguments) == 0
    assert "largest difference: " in capsys.readouterr().out
    assert export_onnx("encode", ENCODER, [*arguments, "--precision", "int8", "--floor", "1"]) == 1
    own.write_text("one line")
    assert export_onnx("encode", ENCODER, arguments) == 2
    assert "has 1 lines; expected at least 30" in capsys.readouterr().err
