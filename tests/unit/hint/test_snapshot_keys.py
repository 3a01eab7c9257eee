"""The ids of a snapshot of the index, as bytes and back."""

from __future__ import annotations

from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from feedmill_hint.snapshots import _pack, _unpack

KEYS = st.none() | st.binary(min_size=12, max_size=12) | st.text(st.characters(codec="utf-8"), max_size=256)


@given(st.lists(KEYS, max_size=20))
def test_keys_come_back_as_they_were(keys: list[bytes | str | None]) -> None:
    assert list(_unpack(b"".join(map(_pack, keys)))) == keys


def test_an_object_id_and_its_text_are_two_keys() -> None:
    identifier = ObjectId()
    assert _pack(identifier.binary) != _pack(str(identifier))
