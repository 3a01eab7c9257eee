"""The training rows: data sets, sentences of our own, disguised copies; without anything that is measured on."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from augment import augmented, embedded
from data import (
    CLEAN,
    HATECHECK,
    HELD_OUT,
    JIGSAW,
    OFFICIAL_TEST,
    OTHERS,
    Example,
    read_checks,
    read_sentences,
    read_source,
)
from feedmill.models.normalise import normalise
from templates import sentences

SENTENCES = Path(__file__).resolve().parent / "sentences"
CHECKS = ("check", "harmless", "harmful", "reported")
"""Sentences to measure on, never to train on."""

# What time there is goes to what tells most. Rows longer than a tweet are a third of Jigsaw's and two thirds of its
# tokens: of the clean ones half is enough. The toxic rows of a tweet's length, beside half as many clean ones, are seen
# twice: they are the most like what people write elsewhere.
_SHORT_CHARS = 280
_LONG_CLEAN = 0.5
_CLEAN_AGAIN = 0.5
_SENTENCE_DRAWS = (7, 8)
_TEMPLATE_WEIGHT = 1.0
_SENTENCE_WEIGHT = 2.0
_DISGUISED = 0.1
_DISGUISED_OWN = 0.25
_EMBEDDED = 800
_TOO_CLOSE = 0.6


def training_rows(folder: Path, limit: int = 0, bare: bool = False) -> list[Example]:
    """All training rows, their texts not yet normalised; a row that is to be seen twice is there twice.

    Args:
        limit: at most this many of each data set, for a quick trial; 0 takes what the recipe says.
        bare: Jigsaw's rows alone.

    Raises:
        ValueError: ``folder`` has none of the data sets.
    """
    comments = read_source(folder, JIGSAW, limit)
    others = [example for source in OTHERS for example in read_source(folder, source, limit)]
    if not comments and not others:
        names = ", ".join(f"{name}.csv.gz" for name in dict.fromkeys(source.name for source in (JIGSAW, *OTHERS)))
        raise ValueError(f"--data {folder}: no data sets; expected some of {names}")
    if bare:
        return comments
    own = _own(limit)
    clean = [example for example in comments if example.targets == CLEAN]
    rows = [
        *_spread(comments),
        *others,
        *own,
        *augmented([*comments, *others], _DISGUISED),
        *augmented(own, _DISGUISED_OWN, seed=8),
        *(embedded(own, clean, _EMBEDDED) if clean else ()),
    ]
    measured = _measured(folder)
    return [row for row in rows if key(row.text) not in measured]


def _spread(comments: list[Example]) -> list[Example]:
    """Jigsaw's rows, as often as each is to be seen."""
    chance = random.Random(7)
    short = [example for example in comments if len(example.text) <= _SHORT_CHARS]
    long = [example for example in comments if len(example.text) > _SHORT_CHARS]
    toxic = [example for example in short if example.targets != CLEAN]
    clean = [example for example in short if example.targets == CLEAN]
    again = [*toxic, *chance.sample(clean, min(len(clean), round(len(toxic) * _CLEAN_AGAIN)))]
    kept = [example for example in long if example.targets != CLEAN or chance.random() < _LONG_CLEAN]
    return [*short, *again, *kept]


def _own(limit: int) -> list[Example]:
    """Sentences of our own that are not a measured sentence in other words."""
    plain = read_sentences(SENTENCES / "train.csv", _SENTENCE_WEIGHT)[: limit or None]
    drawn = []
    for seed in _SENTENCE_DRAWS:
        found = sentences(seed, _TEMPLATE_WEIGHT)
        drawn += random.Random(seed).sample(found, min(limit or len(found), len(found)))
    close = Closeness(check.text for name in CHECKS for check in read_checks(SENTENCES / f"{name}.csv"))
    return [example for example in (*plain, *drawn) if close(example.text) < _TOO_CLOSE]


class Closeness:
    """How much of a text's words the closest of some measured texts has (Jaccard index, 0 to 1)."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._sets = [words(text) for text in texts]
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, found in enumerate(self._sets):
            for word in found:
                self._places[word].append(place)

    def __call__(self, text: str) -> float:
        own = words(text)
        places = {place for word in own for place in self._places[word]}
        return max((len(own & self._sets[at]) / len(own | self._sets[at]) for at in places), default=0.0)


def words(text: str) -> frozenset[str]:
    return frozenset("".join(char if char.isalnum() else " " for char in normalise(text).lower()).split())


def key(text: str) -> str:
    """What makes two texts the same: letters and digits, normalised, in lower case."""
    return "".join(char for char in normalise(text).lower() if char.isalnum())


def _measured(folder: Path) -> set[str]:
    held = [example.text for source in (HELD_OUT, OFFICIAL_TEST, HATECHECK) for example in read_source(folder, source)]
    checks = [check.text for name in CHECKS for check in read_checks(SENTENCES / f"{name}.csv")]
    return {key(text) for text in (*held, *checks)}
