"""Disguises for training texts: the ways in which people hide words from filters."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from math import nan

from data import Example

_LEET = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7"}
_LOOK_ALIKES = {"a": "а", "c": "с", "e": "е", "i": "і", "o": "о", "p": "р", "x": "х", "y": "у"}  # noqa: RUF001
_INVISIBLE = "\u200b\u200c\u2060\u00ad"
_LONGEST = 160
_NAMED = 280
_PERSON = re.compile(
    r"\b(?:editors?|users?|admins?|authors?|writers?|people|person|man|men|woman|women|guys?|friends?|actors?|singers?"
    r"|players?|students?|teachers?|politicians?|artists?|scientists?|doctors?|kids?|children|family|community)\b",
    re.IGNORECASE,
)
_AROUND = 45  # words, so that the sentence is within the tokens that training reads


def augmented(examples: list[Example], share: float, seed: int = 7) -> list[Example]:
    """Disguised copies of a ``share`` of the shorter texts, with the labels of the originals.

    Clean texts are disguised as well, so that the disguise itself says nothing.
    """
    chance = random.Random(seed)
    short = [example for example in examples if len(example.text) <= _LONGEST]
    return [
        replace(example, text=chance.choice(DISGUISES)(example.text, chance))
        for example in chance.sample(short, round(len(short) * share))
    ]


def embedded(sentences: list[Example], clean: list[Example], count: int, seed: int = 7) -> list[Example]:
    """Short sentences before, behind or within a longer clean text: the whole has the labels of the sentence.

    Without them a model that pools by mean takes a long friendly text with one threat in it for a friendly text.
    """
    chance = random.Random(seed)
    toxic = [example for example in sentences if example.targets[0] == 1.0]
    chosen = []
    for example in chance.sample(toxic, min(count, len(toxic))):
        words = chance.choice(clean).text.split()[:_AROUND]
        place = chance.choice((0, len(words) // 2, len(words)))
        text = " ".join((*words[:place], example.text.rstrip(".") + ".", *words[place:]))
        chosen.append(replace(example, text=text))
    return chosen


def naming(examples: list[Example], groups: Sequence[str], count: int, seed: int = 7) -> list[Example]:
    """Copies of shorter texts in which a person is said to be of a group: "the editor" as "the Jewish editor".

    Clean texts stay clean, and toxic ones toxic: a group says nothing by itself, in sentences as people write them.
    Whether what is toxic has become hate against the group is left open.
    """
    chance = random.Random(seed)
    fitting = [one for one in examples if len(one.text) <= _NAMED and _PERSON.search(one.text)]
    chosen = []
    for example in chance.sample(fitting, min(count, len(fitting))):
        place = chance.choice([match.start() for match in _PERSON.finditer(example.text)])
        text = f"{example.text[:place]}{chance.choice(groups)} {example.text[place:]}"
        *known, hate = example.targets
        chosen.append(replace(example, text=text, targets=(*known, nan if example.targets[0] else hate)))
    return chosen


def leet(text: str, chance: random.Random) -> str:
    return "".join(
        chance.choice(_LEET[char.lower()]) if char.lower() in _LEET and chance.random() < 0.4 else char for char in text
    )


def look_alikes(text: str, chance: random.Random) -> str:
    return "".join(_LOOK_ALIKES.get(char, char) if chance.random() < 0.5 else char for char in text)


def invisible(text: str, chance: random.Random) -> str:
    return "".join(char + chance.choice(_INVISIBLE) if chance.random() < 0.3 else char for char in text)


def spaced(text: str, chance: random.Random) -> str:
    """One to three words with the same separator between their letters."""
    words = text.split()
    separator = chance.choice(" .-_*")
    for index in chance.sample(range(len(words)), min(len(words), chance.randint(1, 3))):
        words[index] = separator.join(words[index])
    return " ".join(words)


def elongated(text: str, chance: random.Random) -> str:
    return "".join(char * chance.randint(3, 6) if char.isalpha() and chance.random() < 0.12 else char for char in text)


def masked(text: str, chance: random.Random) -> str:
    """Words of four letters and more with an asterisk for a vowel, here and there."""
    return "".join("*" if char in "aeiouAEIOU" and chance.random() < 0.25 else char for char in text)


def shouted(text: str, chance: random.Random) -> str:
    return text.upper() + "!" * chance.randint(0, 4)


def swapped(text: str, chance: random.Random) -> str:
    """Typing errors: neighbouring letters change places, letters go missing."""
    letters = list(text)
    for index in range(1, len(letters) - 2):
        if letters[index].isalpha() and letters[index + 1].isalpha() and chance.random() < 0.06:
            letters[index], letters[index + 1] = letters[index + 1], letters[index]
    return "".join(char for char in letters if not char.isalpha() or chance.random() > 0.02)


DISGUISES = (leet, look_alikes, invisible, spaced, elongated, masked, shouted, swapped)
