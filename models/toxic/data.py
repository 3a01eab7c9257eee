"""The recipe's data: texts with six labels, of which a data set may know only some."""

from __future__ import annotations

import csv
import gzip
import html
import io
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")

Row = dict[str, str]
Targets = tuple[float, ...]
"""1, 0, or NaN where the data set does not say, for each of ``LABELS``."""

CLEAN: Targets = (0.0,) * len(LABELS)


@dataclass(frozen=True, slots=True)
class Example:
    """A text and what is known about it. ``weight`` is its share in the loss, ``part`` its slice in reports."""

    text: str
    targets: Targets
    weight: float = 1.0
    part: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """One data set of the recipe. Limits are rows drawn with a fixed seed; 0 takes all."""

    name: str
    text: Callable[[Row], str]
    targets: Callable[[Row], Targets | None]
    """None leaves the row out."""
    limit: int = 0
    skip: int = 0
    """Rows of the same order to leave out: those that another source trains on."""
    part: str = ""
    """The column to slice reports by."""


def known(**labels: float) -> Targets:
    """Targets with only the given labels known."""
    return tuple(labels.get(label, nan) for label in LABELS)


def six(row: Row) -> Targets:
    return tuple(float(row[label]) for label in LABELS)


def _is_toxic(row: Row) -> Targets:
    """Data sets that know "toxic" only: what is not toxic is not any of the other labels either."""
    return known(toxic=1.0) if float(row["toxic"]) >= 0.5 else CLEAN


def _tweet_class(wanted: str) -> Callable[[Row], Targets | None]:
    """One of Davidson's classes: 0 hate speech, 1 offensive language, 2 neither.

    "Offensive" is mostly slang among friends, which Jigsaw's annotators would not have called toxic: obscene alone.
    """
    targets = {"0": known(toxic=1.0, identity_hate=1.0), "1": known(obscene=1.0), "2": CLEAN}[wanted]
    return lambda row: targets if row["class"] == wanted else None


def _emoji_hate(row: Row) -> Targets:
    """Hate with emoji; what is not hate may still be rude, so the other labels stay unknown."""
    hateful = float(row["label_gold"])
    return known(toxic=hateful, identity_hate=hateful)


def _only_clean(row: Row) -> Targets | None:
    """The few toxic rows of this set were judged with their context, which the text alone does not show."""
    return CLEAN if float(row["label"]) < 0.5 and row.get("part", "") != "test" else None


def _tweet(row: Row) -> str:
    """A tweet without what only tweets have: retweet marks, mentions, links."""
    text = re.sub(r"https?://\S+|\bRT\b|@\w+:?", " ", html.unescape(row["tweet"]))
    return " ".join(text.strip('!" ').split())


def _comment(row: Row) -> str:
    return row["comment_text"]


def _text(row: Row) -> str:
    return row["text"]


_MADLIBS = 1500

JIGSAW = Source("jigsaw_train_6label", _comment, six)
"""The rows that decide what the labels mean: all of them; of the other sets samples, which must not outweigh them."""
OTHERS = (
    Source("jigsaw_train_extra_nontoxic", _text, _is_toxic, limit=1000),
    Source("davidson_tweets", _tweet, _tweet_class("0")),
    Source("davidson_tweets", _tweet, _tweet_class("1"), limit=600),
    Source("davidson_tweets", _tweet, _tweet_class("2"), limit=2500),
    Source("hatemojibuild_train", _text, _emoji_hate),
    Source("bias_madlibs_8k", _text, _is_toxic, limit=_MADLIBS),
    Source("wiki_context_toxicity", _text, _only_clean, limit=300),
)

HELD_OUT = Source("jigsaw_heldout_6label", _comment, six)
OFFICIAL_TEST = Source("jigsaw_official_test_6label_subset", _comment, six)
HATECHECK = Source(
    "hatecheck_cases",
    lambda row: row["test_case"],
    lambda row: known(toxic=row["label_gold"] == "hateful"),
    part="functionality",
)
HATECHECK_TARGETS = replace(HATECHECK, part="target_ident")
EMOJI_VALIDATION = Source("hatemojibuild_validation", _text, lambda row: known(toxic=float(row["label_gold"])))
MADLIBS_VALIDATION = Source("bias_madlibs_8k", _text, _is_toxic, skip=_MADLIBS)


def read_source(folder: Path, source: Source, limit: int = 0, seed: int = 7) -> list[Example]:
    """The examples of one data set, or none where its file is not there.

    Args:
        limit: take at most this many, for a quick trial run; 0 leaves it at the source's own limit.
    """
    path = next((path for path in _candidates(folder, source.name) if path.is_file()), None)
    rows = list(_read(path)) if path else []
    random.Random(seed).shuffle(rows)
    examples: list[Example] = []
    for row in rows:
        targets, text = source.targets(row), source.text(row).strip()
        if targets is None or not text:
            continue
        examples.append(Example(text, targets, part=row[source.part] if source.part else ""))
    count = min(filter(None, (source.limit, limit)), default=len(examples))
    return examples[source.skip : source.skip + count]


def read_sentences(path: Path, weight: float = 1.0) -> list[Example]:
    """Sentences of our own: a CSV of ``text`` and ``labels`` (names separated by spaces; none for a clean sentence; a
    label with a question mark is left open)."""
    examples = []
    for row in _read(path):
        names = set(row["labels"].split())
        if unknown := {name.removesuffix("?") for name in names} - set(LABELS):
            raise ValueError(f"{path}: unknown labels {sorted(unknown)} for {row['text']!r}; expected some of {LABELS}")
        targets = tuple(nan if f"{label}?" in names else float(label in names) for label in LABELS)
        examples.append(Example(row["text"], targets, weight))
    return examples


@dataclass(frozen=True, slots=True)
class Check:
    """A sentence to measure on, whether it is toxic, and its kind."""

    text: str
    toxic: bool
    kind: str


def read_checks(path: Path) -> list[Check]:
    """Sentences to measure on: a CSV of ``text`` and ``kind`` (``harmful.csv``: all toxic; ``harmless.csv``: none), or
    of ``text`` and ``labels`` or ``toxic``, which then tell."""
    return [
        Check(
            row["text"],
            bool(row["labels"]) if "labels" in row else row.get("toxic", "01"[path.stem == "harmful"]) == "1",
            row.get("kind", path.stem),
        )
        for row in _read(path)
    ]


def texts(examples: Iterable[Example]) -> list[str]:
    return [example.text for example in examples]


def _candidates(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.csv.gz", folder / f"{name}.csv"


def _read(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        yield from csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8", newline=""))
