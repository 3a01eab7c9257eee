"""The bundled sample feed: posts and comments of an invented site, written for this project."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from feedmill_local.sources import from_lines

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Feed:
    """``posts``: ``_id``, ``author``, ``title``, ``content``. ``comments``: ``_id``, ``author``, ``content``."""

    posts: list[Document]
    comments: list[Document]


def load() -> Feed:
    """Read the feed."""
    return Feed(_read("posts.jsonl"), _read("comments.jsonl"))


def _read(name: str) -> list[Document]:
    content = (files("feedmill_local") / "feed" / name).read_bytes()
    return from_lines(content.splitlines(), name)
