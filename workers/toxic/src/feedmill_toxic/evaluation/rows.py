"""Labelled comments, from CSV or JSON lines."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TEXT_COLUMNS = ("text", "content", "comment_text", "test_case", "tweet")
TRUTH_COLUMNS = ("toxic", "isToxic", "is_toxic", "label_gold", "label")
_TRUE = frozenset({"1", "1.0", "true", "yes", "toxic", "hateful", "hate"})
_FALSE = frozenset({"0", "0.0", "false", "no", "clean", "non-hateful", "non-toxic", "neutral", "normal", ""})


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the text and the truth are; empty: the first of the known names that the file has."""

    text: str = ""
    truth: str = ""
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A comment, whether it is toxic, what is known of the model's labels, and the slices that it belongs to."""

    text: str
    toxic: bool
    labels: Mapping[str, bool]
    slices: Mapping[str, str]


def read_rows(path: Path, columns: Columns, labels: Sequence[str]) -> list[Row]:
    """The file's rows: ``.csv`` or ``.jsonl``, also ``.gz``. Columns named as the model's ``labels`` are their truth.

    Raises:
        ValueError: names the file, the line or the column, and what was expected.
    """
    records = list(_records(path))
    if not records:
        raise ValueError(f"{path}: no rows")
    header = records[0].keys()
    text = _column(path, header, columns.text, TEXT_COLUMNS, "text")
    truth = _column(path, header, columns.truth, TRUTH_COLUMNS, "truth")
    if missing := [name for name in columns.slices if name not in header]:
        raise ValueError(f"{path}: no column {', '.join(missing)} for --slice; expected some of {', '.join(header)}")
    known = [label for label in labels if label in header]
    return [
        Row(
            record[text],
            _flag(path, number, truth, record[truth]) or any(_flag(path, number, n, record[n]) for n in known),
            {label: _flag(path, number, label, record[label]) for label in known},
            {name: record[name] for name in columns.slices},
        )
        for number, record in enumerate(records, start=1)
    ]


def _records(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        kind = Path(path.name.removesuffix(".gz")).suffix
        if kind == ".csv":
            yield from ({name: value or "" for name, value in row.items() if name} for row in csv.DictReader(lines))
        elif kind == ".jsonl":
            for number, line in enumerate(lines, start=1):
                yield _parsed(path, number, line)
        else:
            raise ValueError(f"{path}: expected .csv or .jsonl, also with .gz")


def _parsed(path: Path, number: int, line: str) -> dict[str, str]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}: line {number}: no JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: line {number}: expected a JSON object")  # noqa: TRY004  bad input, no bug
    return {str(name): "" if value is None else str(value) for name, value in record.items()}


def _column(path: Path, header: Collection[str], asked: str, names: Sequence[str], what: str) -> str:
    found = [name for name in ([asked] if asked else names) if name in header]
    if not found:
        wanted = asked or f"one of {', '.join(names)}"
        raise ValueError(f"{path}: no column with the {what}: expected {wanted} (--{what}-column)")
    return found[0]


def _flag(path: Path, number: int, column: str, value: str) -> bool:
    key = value.strip().casefold()
    if key not in _TRUE | _FALSE:
        raise ValueError(f"{path}: row {number}: {column} is {value[:40]!r}; expected 1 or 0, true or false")
    return key in _TRUE
