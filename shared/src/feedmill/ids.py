"""Identifiers of posts and comments, as producers send them and as the database holds them."""

from __future__ import annotations

import re

from bson import ObjectId

from feedmill.errors import Reject

PostId = ObjectId | str
"""The ``_id`` of a post or a comment."""

MAX_ID_CHARS = 256

_HEX_24 = re.compile(r"[0-9a-fA-F]{24}")
_EXPECTED = f'expected 24 hex digits, {{"$oid": "<24 hex digits>"}} or a string of 1 to {MAX_ID_CHARS} characters'


def parse_id(value: object, field: str) -> PostId:
    """The id in ``value``, which came from a message's ``field``.

    A string of 24 hex digits and ``{"$oid": …}`` mean an ObjectId; any other string is taken literally. An object with
    any other key is refused: it could act as a query.

    Raises:
        Reject: ``bad_id``, naming the field and what was expected.
    """
    if isinstance(value, dict) and list(value) == ["$oid"]:
        digits = value["$oid"]
        if isinstance(digits, str) and _HEX_24.fullmatch(digits):
            return ObjectId(digits)
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS:
        if _HEX_24.fullmatch(value):
            return ObjectId(value)
        if _is_storable(value):
            return value
        raise Reject("bad_id", f"{field} holds a NUL character or half of a surrogate pair: {_EXPECTED}")
    raise Reject("bad_id", f"{field} is {_describe(value)}: {_EXPECTED}")


def id_text(post_id: PostId) -> str:
    """The id as results carry it: an ObjectId's 24 hex digits, or the string itself."""
    return str(post_id)


def _is_storable(text: str) -> bool:
    """Whether every MongoDB driver and every JSON reader can carry ``text``."""
    return "\x00" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _describe(value: object) -> str:
    if value is None:
        return "missing or null"
    if isinstance(value, str):
        return f"a string of {len(value)} characters"
    return {bool: "true or false", int: "a number", float: "a number", list: "an array"}.get(type(value), "an object")
