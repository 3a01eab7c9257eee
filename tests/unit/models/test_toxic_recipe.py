"""The recipe of the default toxicity model, from end to end on a few made-up rows."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import model_settings

from feedmill.models.classifier import load_classifier

RECIPE = Path(__file__).resolve().parents[3] / "models" / "toxic" / "train.py"
SIX = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]

RUDE = ["You are a stupid idiot", "I will kill you", "Shut up, moron", "What a pathetic loser"]
KIND = ["Thank you so much", "The train leaves at nine", "I love this garden", "See you tomorrow"]
SIX_ROWS = [[text, "1", "0", "0", "0", "1", "0"] for text in RUDE] + [[text, *"000000"] for text in KIND]


def write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The script as people call it, from another folder, with nothing of the caller's settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEEDMILL_")}
    command = [sys.executable, str(RECIPE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows in the columns of the real data sets; two of those are left out, as they may be."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("jigsaw_train_6label", "jigsaw_heldout_6label", "jigsaw_official_test_6label_subset"):
        write(folder / f"{name}.csv", ["comment_text", *SIX], SIX_ROWS)
    write(folder / "bias_madlibs_8k.csv", ["text", "toxic"], [["Ann is a moron", "1"], ["Ann is a great friend", "0"]])
    tweets = [["RT @someone: http://t.co/x you &amp; your stupid face", "1"], ["see @you at nine", "2"]]
    write(folder / "davidson_tweets.csv", ["tweet", "class"], tweets)
    write(folder / "hatemojibuild_train.csv", ["text", "label_gold"], [["go away 🐀", "1"], ["hello 🙂", "0"]])
    cases = [["I hate you", "hateful", "derog", "women"], ["Hi", "non-hateful", "ident", ""]]
    write(folder / "hatecheck_cases.csv", ["test_case", "label_gold", "functionality", "target_ident"], cases)
    return folder


def test_the_recipe_makes_a_model_that_loads_and_goes_on_after_a_stop(data: Path, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "head", tmp_path / "checkpoint.safetensors"
    options = ["--data", data, "--out", out, "--checkpoint", checkpoint, "--limit", "8", "--threads", "1"]
    done = run(*options, "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "s left" in done.stderr
    assert "| toxic | 4 |" in done.stdout
    card = (out / "README.md").read_text(encoding="utf-8")
    assert done.stdout.strip() in card
    assert "<" not in card.replace("<commit>", "").replace("&lt;", "")
    again = run(*options, "--epochs", "2")
    assert "going on after step" in again.stderr
    loaded = load_classifier(model_settings(out), "")
    loaded.classifier.warm_up()
    assert loaded.classifier.labels == tuple(SIX)
    rude, kind = loaded.judge(loaded.classifier.tokenize(["You are an idiot", "Thank you, great work"]))
    assert isinstance(rude, dict)
    assert isinstance(kind, dict)
    assert rude["toxic"] > kind["toxic"]


def test_without_data_it_says_what_it_needs(tmp_path: Path) -> None:
    done = run("--data", tmp_path / "absent", "--out", tmp_path / "head", "--checkpoint", tmp_path / "checkpoint")
    assert done.returncode == 2
    assert "no data sets; expected some of jigsaw_train_6label.csv.gz" in done.stderr
    assert not (tmp_path / "head").exists()


def test_a_model_of_no_windows_is_refused(tmp_path: Path) -> None:
    done = run("--windows", "0", "8", "--out", tmp_path / "head")
    assert done.returncode == 2
    assert "--windows: expected a whole number from 1 on, not '0'" in done.stderr


def test_help() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "--data" in done.stdout
