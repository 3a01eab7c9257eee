"""Reading what ``feedmill send`` sends: a text, a JSON file, or JSON Lines. All is checked before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import orjson

from feedmill.errors import FeedmillError
from feedmill.wire import json_type

LINES_SUFFIXES = {".jsonl", ".ndjson"}


class InputError(FeedmillError):
    """What was to be sent can't be read. The text says where and what was expected; nothing was sent."""


def from_lines(lines: Iterable[bytes], source: str) -> list[dict[str, Any]]:
    """One JSON object a line; empty lines are left out.

    Raises:
        InputError: names the line.
    """
    return [_object(line, f"{source}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def from_file(content: bytes, name: str) -> list[dict[str, Any]]:
    """A file's objects: JSON Lines by its suffix (``LINES_SUFFIXES``), else one JSON object or an array of them.

    Raises:
        InputError: names the line or the entry.
    """
    if PurePath(name).suffix.lower() in LINES_SUFFIXES:
        return from_lines(content.splitlines(), name)
    value = _parse(content, name)
    if isinstance(value, list):
        return [_checked(entry, f"{name}, entry {number}") for number, entry in enumerate(value, 1)]
    return [_checked(value, name)]


def encode(body: dict[str, Any]) -> bytes:
    """A message's body. Raises InputError for text that UTF-8 can't carry: a command line's broken bytes."""
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise InputError(f"expected text in UTF-8: {error}") from None


def _object(text: bytes, where: str) -> dict[str, Any]:
    return _checked(_parse(text, where), where)


def _parse(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where}: expected a JSON object in UTF-8: {error}") from None


def _checked(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, got {json_type(value)}")
    return value
