"""Bodies: whatever bytes arrive, the answer is an object or a Reject that says why."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.errors import Reject
from feedmill.wire import MAX_DEPTH, decode_object, encode_object, text_field

LIMIT = 1_048_576


def nested(levels: int, kind: str = "object") -> bytes:
    """An object that nests ``levels`` deep in all."""
    inner = b"1" if levels == 1 else nested_value(levels - 1, kind)
    return b'{"a":' + inner + b"}"


def nested_value(levels: int, kind: str) -> bytes:
    opening, closing = (b'{"a":', b"}") if kind == "object" else (b"[", b"]")
    return opening * levels + b"1" + closing * levels


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"hello", "not_json"),
        (b'{"a":1', "not_json"),
        (b'{"a":1} x', "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"a":"\xc3\x28"}', "not_json"),
        (b'{"a":"\xed\xa0\x80"}', "not_json"),
        (b'{"a":"\\ud800"}', "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"a":NaN}', "not_json"),
        (b'{"a":Infinity}', "not_json"),
        (b'{"a":1e400}', "not_json"),
        (b'{"a":' + b"9" * 5000 + b"}", "not_json"),
        ('{"a":"é"}'.encode("latin-1"), "not_json"),
        ('{"a":1}'.encode("utf-16"), "not_json"),
        (b"[]", "not_object"),
        (b"null", "not_object"),
        (b"true", "not_object"),
        (b'"text"', "not_object"),
        (b"12", "not_object"),
        (b"[" * 100_000, "too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
        (b"[" * 40 + b"]" * 40, "not_object"),
        (b" " * LIMIT + b"{}", "too_large"),
    ],
)
def test_bad_bodies_are_rejected_with_their_reason(body: bytes, reason: str) -> None:
    with pytest.raises(Reject) as caught:
        decode_object(body, LIMIT)
    assert caught.value.reason == reason
    assert caught.value.detail.startswith("body: ")
    assert len(caught.value.detail) <= 500


def test_huge_integers_that_a_double_can_hold_are_numbers() -> None:
    assert decode_object(b'{"a":' + b"9" * 30 + b"}", LIMIT) == {"a": 1e30}


@pytest.mark.parametrize("kind", ["object", "array"])
def test_the_depth_limit_is_exact(kind: str) -> None:
    assert decode_object(nested(MAX_DEPTH, kind), LIMIT) == json.loads(nested(MAX_DEPTH, kind))
    with pytest.raises(Reject, match="too_deep"):
        decode_object(nested(MAX_DEPTH + 1, kind), LIMIT)


def test_the_size_limit_is_exact() -> None:
    body = b'{"a":"' + b"x" * (1024 - 8) + b'"}'
    assert len(body) == 1024
    decode_object(body, 1024)
    with pytest.raises(Reject, match="1025 bytes, expected at most 1024"):
        decode_object(body + b" ", 1024)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet='{}[]",:0123456789eE+-.\\u aNInftruelsd\ud800', max_size=60).map(
            lambda text: text.encode("utf-8", "surrogatepass")
        ),
        JSON.map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_bytes_give_an_object_or_a_reject(body: bytes) -> None:
    try:
        value = decode_object(body, LIMIT)
    except Reject:
        return
    assert isinstance(value, dict)
    orjson.dumps(value)


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        ({}, "missing_field", "content or text: missing, expected text"),
        ({"content": None}, "missing_field", "content or text: missing, expected text"),
        ({"content": 1}, "wrong_type", "content: expected text, got a number"),
        ({"content": True}, "wrong_type", "content: expected text, got true or false"),
        ({"text": ["a"]}, "wrong_type", "text: expected text, got an array"),
        ({"text": {"$ne": None}}, "wrong_type", "text: expected text, got an object"),
        ({"content": "x" * 11}, "too_long", "content: 11 characters, expected at most 10"),
    ],
)
def test_text_fields_say_what_is_wrong(body: dict[str, Any], reason: str, detail: str) -> None:
    with pytest.raises(Reject) as caught:
        text_field(body, ("content", "text"), 10)
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


def test_text_fields_are_taken_in_order() -> None:
    names = ("content", "text")
    assert text_field({"text": "b", "content": "a"}, names, 10) == "a"
    assert text_field({"text": "b", "content": None}, names, 10) == "b"
    assert text_field({"content": ""}, names, 10) == ""
    assert text_field({}, names, 10, required=False) == ""
    with pytest.raises(Reject, match="wrong_type"):
        text_field({"text": 1}, names, 10, required=False)


def test_results_are_utf8_json() -> None:
    assert encode_object({"a": "é😀", "b": [1, 0.5]}) == '{"a":"é😀","b":[1,0.5]}'.encode()
    with pytest.raises(TypeError):
        encode_object({"a": object()})
