"""Stored documents as JSON: what results show of a post."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from bson import DBRef, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

VECTOR_FIELD = "embedding"


def json_safe(document: Mapping[str, Any]) -> dict[str, Any]:
    """A BSON document in JSON's types, without its vector (``embedding``).

    ObjectIds become their 24 hex digits, dates ISO 8601 in UTC, decimals and UUIDs strings, binary data Base64, NaN and
    infinities null.
    """
    return {str(key): _convert(value) for key, value in document.items() if key != VECTOR_FIELD}


def _iso(moment: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond, which is what BSON holds. A naive date is UTC, as the driver decodes it."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Subclasses come before their base classes: bool is an int, bson.Binary is bytes, bson.Int64 is an int.
_CONVERSIONS: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (bool, lambda value: value),
    (str, str),
    (int, int),
    (float, lambda value: value if math.isfinite(value) else None),
    (Mapping, lambda value: {str(key): _convert(item) for key, item in value.items()}),
    (list, lambda value: [_convert(item) for item in value]),
    (bytes, lambda value: base64.b64encode(value).decode("ascii")),
    (datetime, _iso),
    (Timestamp, lambda value: _iso(value.as_datetime())),
    (DatetimeMS, int),  # a date outside the years 1 to 9999
    (DBRef, lambda value: _convert(value.as_doc())),
    (Regex, lambda value: str(value.pattern)),
)


def _convert(value: object) -> object:
    if value is None:
        return None
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return convert(value)
    return str(value)  # ObjectId, Decimal128, UUID, MinKey, MaxKey and whatever BSON may still learn
