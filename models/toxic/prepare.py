"""The training rows: data sets, sentences of our own, disguised copies; without anything that is measured on."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from math import nan
from pathlib import Path

from augment import augmented, embedded, naming
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
from templates import ONE, sentences

SENTENCES = Path(__file__).resolve().parent / "sentences"
CHECKS = ("check", "harmless", "harmful", "reported")
"""Sentences to measure on, never to train on."""

# Swearing at nobody. Jigsaw's annotators call nine of ten such comments toxic; other data sets, and we, do not. A model
# that is told that it is as clean as a weather report ranks it below what Jigsaw calls clean; told this, it stays below
# the threshold, and above the weather report.
_SWEARING = re.compile(
    r"\b(?:\w*fuck\w*|\w*shit\w*|\w*bitch\w*|(?:dumb|bad|smart|jack)?ass(?:es|holes?)?|(?:god)?damn\w*|hell|crap\w*"
    r"|sucks?|piss\w*|bastards?|dicks?|wtf|lmf?ao|stfu)\b",
    re.IGNORECASE,
)
_SWEARING_TOXIC = 0.3

_SENTENCE_DRAWS = (7, 8)
_TEMPLATE_WEIGHT = 1.5
_SENTENCE_WEIGHT = 2.0
_DISGUISED = 0.1
_DISGUISED_OWN = 0.25
_EMBEDDED = 800
_NAMING_CLEAN, _NAMING_TOXIC = 1500, 500
_TOO_CLOSE = 0.6


def training_rows(folder: Path, limit: int = 0, bare: bool = False) -> list[Example]:
    """All training rows, their texts not yet normalised, and none that is measured on.

    Args:
        limit: at most this many of each data set, for a quick trial; 0 takes what the recipe says.
        bare: Jigsaw's rows alone.

    Raises:
        ValueError: ``folder`` has none of the data sets that it takes.
    """
    sources = (JIGSAW,) if bare else (JIGSAW, *OTHERS)
    read = {source: read_source(folder, source, limit) for source in sources}
    if not any(read.values()):
        names = ", ".join(f"{name}.csv.gz" for name in dict.fromkeys(source.name for source in sources))
        raise ValueError(f"--data {folder}: no data sets; expected some of {names}")
    comments = read.pop(JIGSAW)
    others = [tempered(example) for found in read.values() for example in found]
    rows = comments if bare else _mixed(comments, others, limit)
    measured = _measured(folder)
    return [row for row in rows if key(row.text) not in measured]


def _mixed(comments: list[Example], others: list[Example], limit: int) -> list[Example]:
    """The rows, our own, disguised copies of both, and copies in which a group is named."""
    own = [tempered(example) for example in _own(limit)]
    clean = [example for example in comments if example.targets == CLEAN]
    toxic = [example for example in comments if example.targets != CLEAN]
    return [
        *comments,
        *others,
        *own,
        *augmented([*comments, *others], _DISGUISED),
        *augmented(own, _DISGUISED_OWN, seed=8),
        *(embedded(own, clean, _EMBEDDED) if clean else ()),
        *naming(clean, ONE, limit or _NAMING_CLEAN),
        *naming(toxic, ONE, limit or _NAMING_TOXIC),
    ]


def tempered(example: Example) -> Example:
    """A text that is called harmless although it swears: a little toxic, and perhaps obscene.

    Not for Jigsaw's rows with six labels, where annotators looked at the swearing.
    """
    toxic, severe, obscene, *rest = example.targets
    if toxic != 0 or not _SWEARING.search(normalise(example.text)):
        return example
    return replace(example, targets=(_SWEARING_TOXIC, severe, obscene or nan, *rest))


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
