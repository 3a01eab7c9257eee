"""Posts to encode: as long as short posts are, with a long tail, and the same in every run."""

from __future__ import annotations

import json
import random
from importlib.resources import files


def posts(count: int) -> list[dict[str, str]]:
    """``count`` posts ``{"_id", "content"}``: 29 tokens on average, half of them below 21, some of 250."""
    feed = (files("feedmill_local") / "feed" / "posts.jsonl").read_text(encoding="utf-8").splitlines()
    words = [word for line in feed for word in str(json.loads(line)["content"]).split()]
    chance = random.Random(8)
    return [{"_id": f"{number:024x}", "content": _text(words, chance)} for number in range(count)]


def _text(words: list[str], chance: random.Random) -> str:
    length = max(3, min(200, int(chance.lognormvariate(2.8, 0.8))))
    start = chance.randrange(len(words) - length)
    return " ".join(words[start : start + length])
