"""The training rows: data sets, sentences of our own, disguised copies; without anything that is measured on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from augment import augmented, embedded
from data import CLEAN, HATECHECK, HELD_OUT, OFFICIAL_TEST, TRAINING, Example, read_checks, read_sentences, read_source
from feedmill.models.normalise import normalise
from templates import sentences

SENTENCES = Path(__file__).resolve().parent / "sentences"
CHECKS = ("check", "harmless", "harmful", "reported")
"""Sentences to measure on, never to train on."""

_TEMPLATE_WEIGHT = 1.5
_EMBEDDED = 1000
_SAMPLE = 5000
_SENTENCE_WEIGHT = 3.0
_DISGUISED = 0.1
_DISGUISED_OWN = 0.3


@dataclass(frozen=True, slots=True)
class Training:
    """Training rows, their texts not yet normalised: ``broad`` first, ``focus`` to finish with."""

    broad: list[Example]
    """The data sets, sentences of our own, and disguised copies."""
    focus: list[Example]
    """Mostly sentences of our own, plain, disguised and hidden in longer texts, beside a sample of the data sets."""


def training_rows(folder: Path, limit: int = 0) -> Training:
    """All training rows.

    Args:
        limit: at most this many of each data set, for a quick trial; 0 takes what the recipe says.

    Raises:
        ValueError: ``folder`` has none of the data sets.
    """
    sets = [example for source in TRAINING for example in read_source(folder, source, limit)]
    if not sets:
        names = ", ".join(f"{name}.csv.gz" for name in dict.fromkeys(source.name for source in TRAINING))
        raise ValueError(f"--data {folder}: no data sets; expected some of {names}")
    plain = read_sentences(SENTENCES / "train.csv", _SENTENCE_WEIGHT)
    first, second = (sentences(seed, _TEMPLATE_WEIGHT)[: limit or None] for seed in (7, 8))
    broad = [*sets, *first, *plain]
    broad += augmented(broad, _DISGUISED)
    own = [*first, *second, *plain]
    clean = [example for example in sets if example.targets == CLEAN]
    focus = [
        *own,
        *augmented(own, _DISGUISED_OWN, seed=8),
        *embedded(own, clean, _EMBEDDED),
        *random.Random(9).sample(sets, min(_SAMPLE, len(sets))),
    ]
    measured = _measured(folder)
    return Training(*([row for row in rows if key(row.text) not in measured] for rows in (broad, focus)))


def key(text: str) -> str:
    """What makes two texts the same: letters and digits, normalised, in lower case."""
    return "".join(char for char in normalise(text).lower() if char.isalnum())


def _measured(folder: Path) -> set[str]:
    held = [example.text for source in (HELD_OUT, OFFICIAL_TEST, HATECHECK) for example in read_source(folder, source)]
    checks = [check.text for name in CHECKS for check in read_checks(SENTENCES / f"{name}.csv")]
    return {key(text) for text in (*held, *checks)}
