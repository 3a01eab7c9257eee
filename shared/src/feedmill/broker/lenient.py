"""Messages whose properties can't be read.

The client library ends the connection over one property that it can't decode: text that is not UTF-8, a timestamp in
microseconds (beyond the year 9999), headers nested a thousand deep. The broker delivers such a message again, it ends
the next connection too, and so one message would block its queue for ever. Here what can't be read is left out
instead, and the message goes its way.
"""

from __future__ import annotations

import struct
from typing import Any

from pamqp import decode

_UNREADABLE = (ValueError, OverflowError, OSError, RecursionError)
"""What the library's decoders raise: UnicodeDecodeError is a ValueError; the others come from dates and from depth."""

Decoded = tuple[int, Any]
"""Bytes consumed, and the value."""


def tolerate_bad_properties() -> None:
    """Replace three of the library's decoders, for the whole process. Calling it again changes nothing."""
    decode.METHODS.update({"shortstr": _short_text, "timestamp": _timestamp, "table": _table})
    decode.TABLE_MAPPING[b"T"] = _timestamp


def _short_text(value: bytes) -> Decoded:
    try:
        return decode.short_str(value)
    except UnicodeDecodeError:
        size = value[0]
        return size + 1, value[1 : size + 1].decode("utf-8", "ignore")


def _timestamp(value: bytes) -> Decoded:
    try:
        return decode.timestamp(value)
    except _UNREADABLE:
        return 8, None


def _table(value: bytes) -> Decoded:
    try:
        return decode.field_table(value)
    except _UNREADABLE:
        (size,) = struct.unpack_from(">I", value)
        if size > len(value) - 4:
            raise  # no property but the frame is broken: there is no telling where the next one begins
        return size + 4, {}
