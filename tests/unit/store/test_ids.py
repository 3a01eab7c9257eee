from __future__ import annotations

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from feedmill.errors import Reject
from feedmill.ids import MAX_ID_CHARS, id_text, parse_id

HEX = "507f1f77bcf86cd799439011"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (HEX, ObjectId(HEX)),
        (HEX.upper(), ObjectId(HEX)),
        ({"$oid": HEX}, ObjectId(HEX)),
        ("post-17", "post-17"),
        (HEX[:-1], HEX[:-1]),
        (HEX + "0", HEX + "0"),
        (HEX + "\n", HEX + "\n"),
        ("{$ne: null}", "{$ne: null}"),
        ("x" * MAX_ID_CHARS, "x" * MAX_ID_CHARS),
        ("bài viết 🙂", "bài viết 🙂"),
    ],
)
def test_ids_that_are_taken(value: object, expected: object) -> None:
    assert parse_id(value, "_id") == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        17,
        1.5,
        True,
        [HEX],
        {},
        {"$ne": None},
        {"$oid": HEX, "x": 1},
        {"$oid": "short"},
        {"$oid": 5},
        {"$oid": {"$ne": 1}},
        "x" * (MAX_ID_CHARS + 1),
        "a\x00b",
        "a\ud800",
    ],
)
def test_ids_that_are_refused(value: object) -> None:
    with pytest.raises(Reject) as caught:
        parse_id(value, "commentId")
    assert caught.value.reason == "bad_id"
    assert "commentId" in caught.value.detail
    assert "expected" in caught.value.detail


@given(st.one_of(st.text(), st.dictionaries(st.text(), st.text()), st.integers(), st.none()))
def test_an_id_is_a_plain_value_or_refused(value: object) -> None:
    try:
        post_id = parse_id(value, "_id")
    except Reject:
        return
    assert isinstance(post_id, (ObjectId, str))
    assert isinstance(value, str)
    assert id_text(post_id) == (value.lower() if isinstance(post_id, ObjectId) else value)
