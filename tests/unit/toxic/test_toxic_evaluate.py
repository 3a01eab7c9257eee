"""``feedmill-toxic evaluate`` on a small file with the default model."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from feedmill_toxic.evaluation.command import evaluate

HEADER = "text,toxic,insult,group\n"
ROWS = [
    ("Thank you so much for this recipe", 0, 0, "food"),
    ("You are a stupid idiot", 1, 1, "insults"),
    ("The train leaves at nine", 0, 0, "travel"),
    ("What a pathetic loser you are", 1, 1, "insults"),
    ("https://example.org/stupid-idiot", 0, 0, "links"),
    ("Good morning everybody", 1, 0, "wrong | label"),
    ("Du bist ein dummer Idiot und ich hasse dich", 0, 0, "german"),
]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDMILL_THREADS", "1")
    monkeypatch.setenv("FEEDMILL_DEVICE", "cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "comments.csv"
    path.write_text(HEADER + "".join(",".join(map(str, row)) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_the_report(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    assert evaluate(["--data", str(data), "--out", str(out), "--slice", "group", "--draws", "20"]) == 0
    printed = capsys.readouterr().out
    assert all(str(out / name) in printed for name in ("report.md", "report.json", "reliability.png"))
    assert (out / "precision_recall.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "| insults |" in text or "| group | insults | 2 | 0 | 1.000 |" in text
    assert "Good morning everybody" in text
    assert "wrong \\| label" in text
    found = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert found["confusion"] == {
        "true_positives": 2, "false_positives": 0, "false_negatives": 1, "true_negatives": 4
    }  # fmt: skip
    assert [label["name"] for label in found["labels"]] == ["toxicity", "insult", "toxic"]
    assert found["foreign"] == 1
    assert "judged clean: 1." in text
    assert found["model"].startswith("feedmill_toxic@")


def test_json_lines_with_columns_of_other_names(data: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"body": text, "bad": bool(toxic)}) for text, toxic, _, _ in ROWS]
    path = tmp_path / "comments.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    columns = ["--text-column", "body", "--truth-column", "bad"]
    assert evaluate(["--data", str(path), "--out", str(tmp_path / "report"), "--draws", "5", *columns]) == 0


@pytest.mark.parametrize(
    ("content", "arguments", "told"),
    [
        ("", [], "no rows"),
        ("words,toxic\nhello,0\n", [], "no column with the text"),
        ("text,verdict\nhello,0\n", [], "no column with the truth"),
        ("text,toxic\nhello,perhaps\n", [], "row 1: toxic is 'perhaps'"),
        ("text,toxic\nhello,0\n", ["--slice", "group"], "no column group for --slice"),
    ],
)
def test_data_that_does_not_fit(
    content: str, arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "comments.csv"
    path.write_text(content, encoding="utf-8")
    assert evaluate(["--data", str(path), "--out", str(tmp_path / "report"), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(["--data", str(tmp_path / "absent.csv"), "--out", str(tmp_path / "report")]) == 2
    assert "absent.csv" in capsys.readouterr().err
