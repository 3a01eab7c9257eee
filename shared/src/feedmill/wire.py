"""From bytes to a checked JSON object and its fields, and from a result to bytes.

A body's ``content_type`` and ``content_encoding`` are ignored: producers set them wrongly, and the contract says UTF-8
JSON whatever they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from feedmill.errors import Reject

MAX_DEPTH = 32
"""Levels of nesting: far above what the contract needs, far below what makes a recursive reader fail."""


def decode_object(body: bytes, max_body_bytes: int) -> dict[str, Any]:
    """A message's body as a JSON object.

    Raises:
        Reject: too_large, not_json (also: not UTF-8, NaN, lone surrogates), not_object, too_deep.
    """
    if len(body) > max_body_bytes:
        raise Reject("too_large", f"body: {len(body)} bytes, expected at most {max_body_bytes}")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "depth limit" in str(error) or "recursion limit" in str(error).lower():
            raise Reject("too_deep", f"body: nested deeper than {MAX_DEPTH} levels") from None
        raise Reject("not_json", f"body: expected a JSON object in UTF-8: {error}") from None
    if not isinstance(value, dict):
        raise Reject("not_object", f"body: expected a JSON object, got {json_type(value)}")
    if not _is_shallow(value):
        raise Reject("too_deep", f"body: nested deeper than {MAX_DEPTH} levels")
    return value


def encode_object(value: Mapping[str, Any]) -> bytes:
    """A result as UTF-8 JSON. Raises TypeError for what JSON has no word for: a bug of the caller."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def text_field(body: Mapping[str, Any], names: tuple[str, ...], max_chars: int, *, required: bool = True) -> str:
    """The first of ``names`` that the body has, as text; ``""`` where none is there and none is required.

    Raises:
        Reject: missing_field, wrong_type, too_long; the text names the field.
    """
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise Reject("wrong_type", f"{name}: expected text, got {json_type(value)}")
        if len(value) > max_chars:
            raise Reject("too_long", f"{name}: {len(value)} characters, expected at most {max_chars}")
        return value
    if required:
        raise Reject("missing_field", f"{' or '.join(names)}: missing, expected text")
    return ""


def json_type(value: object) -> str:
    """A JSON value's type in JSON's words, for error messages."""
    if value is None:
        return "null"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def _is_shallow(value: object) -> bool:
    """Whether ``value`` nests at most MAX_DEPTH levels. Level by level, so that depth costs no stack."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)  # type: ignore[attr-defined]
            if isinstance(child, (dict, list))
        ]
        if not level:
            return True
    return False
