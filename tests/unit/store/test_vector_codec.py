"""Vectors between a model's row, the database's binary form, and an array of floats."""

from __future__ import annotations

import math
from typing import Any

import bson
import numpy as np
from bson import Binary, ObjectId
from bson.binary import BinaryVectorDtype
from hypothesis import given
from hypothesis import strategies as st

from feedmill.spaces import Space, VectorWrite
from feedmill.spaces.vectors import _stored, _vector_error, _vector_update, as_numbers

ROWS = st.lists(st.floats(width=32), min_size=1, max_size=20)
VALUES: st.SearchStrategy[Any] = (
    st.none()
    | st.integers(-9, 9)
    | st.text(max_size=9)
    | st.binary(max_size=40)
    | st.builds(Binary, st.binary(max_size=40), st.sampled_from([0, 4, 9]))
    | st.builds(lambda rest: Binary(b"\x27\x00" + rest, 9), st.binary(max_size=40))
    | st.lists(st.floats(), max_size=3)
)


def space(dimensions: int) -> Space:
    return Space("a-space", "a-model", "1", dimensions)


@given(ROWS)
def test_a_vector_comes_back_from_the_database_bit_by_bit(numbers: list[float]) -> None:
    row = np.array(numbers, "<f4")
    write = VectorWrite(ObjectId(), row.tobytes(), "hash")
    stored = bson.decode(bson.encode({"_id": write.id, **_vector_update(write).update["$set"]}))
    found = _stored(stored, len(numbers))
    assert found is not None
    assert (found.id, found.vector) == (write.id, row.tobytes())
    assert _stored(stored, len(numbers) + 1) is None, "of another space"
    plain = stored["vector"].as_vector()  # as the database's own drivers read it
    assert plain.dtype is BinaryVectorDtype.FLOAT32
    assert np.array(plain.data, "<f4").tobytes() == row.tobytes()
    assert np.array(as_numbers(write.vector), "<f4").tobytes() == row.tobytes()


@given(ROWS, st.integers(1, 20))
def test_only_finite_vectors_of_the_spaces_length_are_written(numbers: list[float], dimensions: int) -> None:
    write = VectorWrite("id", np.array(numbers, "<f4").tobytes(), "hash")
    is_sound = len(numbers) == dimensions and all(map(math.isfinite, numbers))
    assert (_vector_error(space(dimensions), write) is None) == is_sound


@given(st.binary(max_size=40), st.integers(1, 9))
def test_bytes_of_any_length_are_a_vector_or_refused(data: bytes, dimensions: int) -> None:
    error = _vector_error(space(dimensions), VectorWrite("id", data, "hash"))
    assert error is None or error.reason == "bad_vector"


@given(st.dictionaries(st.sampled_from(["vector", "updatedAt", "contentHash"]), VALUES), VALUES, st.integers(1, 9))
def test_whatever_somebody_else_stored_is_a_vector_or_left_out(fields: Any, identifier: Any, dimensions: int) -> None:
    found = _stored({"_id": identifier, **fields}, dimensions)
    assert found is None or len(found.vector) == dimensions * 4
