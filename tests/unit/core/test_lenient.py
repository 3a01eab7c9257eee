"""One message with unreadable properties must not end the connection: it would come again and block its queue."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from feedmill.broker.lenient import tolerate_bad_properties

FLAGS = Basic.Properties.flags
MICROSECONDS = struct.pack(">Q", 1_700_000_000_000_000)


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(name: bytes, kind: bytes, value: bytes) -> bytes:
    entry = short(name) + kind + value
    return struct.pack(">I", len(entry)) + entry


def nested(levels: int) -> bytes:
    inner = struct.pack(">I", 0)
    for _ in range(levels):
        inner = table(b"k", b"F", inner)
    return inner


def read(*fields: tuple[str, bytes]) -> Basic.Properties:
    """The properties of a header frame, read as the client library reads it."""
    flags = sum(FLAGS[name] for name, _ in fields)
    payload = struct.pack(">HHQH", 60, 0, 5, flags) + b"".join(value for _, value in fields)
    _, _, header = frame.unmarshal(struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce")
    assert isinstance(header, ContentHeader)
    assert header.body_size == 5
    return header.properties


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    methods, mapping = dict(decode.METHODS), dict(decode.TABLE_MAPPING)
    tolerate_bad_properties()
    tolerate_bad_properties()
    yield
    decode.METHODS.update(methods)
    decode.TABLE_MAPPING.update(mapping)


def test_the_unreadable_is_left_out_and_the_rest_is_read() -> None:
    properties = read(
        ("content_type", short(b"text/plain")),
        ("headers", table(b"\xff\xfe", b"t", b"\1")),
        ("correlation_id", short(b"a\xffb")),
        ("message_id", short(b"id")),
        ("timestamp", MICROSECONDS),
        ("app_id", short(b"theirs")),
    )
    assert properties.content_type == "text/plain"
    assert properties.headers == {}
    assert properties.correlation_id == "ab"
    assert properties.message_id == "id"
    assert properties.timestamp is None
    assert properties.app_id == "theirs"


@pytest.mark.parametrize("levels", [1000, 10_000])
def test_headers_nested_too_deep_are_left_out(levels: int) -> None:
    properties = read(("headers", nested(levels)), ("message_id", short(b"id")))
    assert (properties.headers, properties.message_id) == ({}, "id")


def test_a_bad_timestamp_among_the_headers_costs_no_other_header() -> None:
    entries = short(b"at") + b"T" + MICROSECONDS + short(b"n") + b"b\x05"
    assert read(("headers", struct.pack(">I", len(entries)) + entries)).headers == {"at": None, "n": 5}


def test_readable_properties_are_read_as_ever() -> None:
    headers: dict[str, Any] = {"a": "é", "b": [1, {"c": True}]}
    written = ContentHeader(body_size=5, properties=Basic.Properties(headers=headers, message_id="é")).marshal()
    header = ContentHeader()
    header.unmarshal(written)
    assert (header.properties.headers, header.properties.message_id) == (headers, "é")


@given(st.binary(max_size=255), st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=127), st.binary(max_size=60))
def test_whatever_well_framed_bytes_say_the_header_is_read(
    text: bytes, moment: int, name: bytes, garbage: bytes
) -> None:
    properties = read(
        ("headers", table(name, garbage[:1], garbage[1:])),
        ("correlation_id", short(text)),
        ("message_id", short(b"id")),
        ("timestamp", struct.pack(">Q", moment)),
    )
    assert properties.message_id == "id"
    ContentHeader(body_size=5, properties=Basic.Properties(correlation_id=properties.correlation_id)).marshal()
