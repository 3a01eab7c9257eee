from __future__ import annotations

import datetime as dt
import json
import uuid

import bson
import orjson
from bson import Binary, Code, DBRef, Decimal128, Int64, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from feedmill.documents import json_safe


def test_every_bson_type_becomes_json() -> None:
    post_id = ObjectId("507f1f77bcf86cd799439011")
    document = {
        "_id": post_id,
        "embedding": [0.5],
        "created": dt.datetime(2026, 1, 2, 3, 4, 5, 678_000),  # noqa: DTZ001 (naive, as the driver decodes it)
        "zoned": dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=7))),
        "far": DatetimeMS(10**15),
        "price": Decimal128("1.10"),
        "image": Binary(b"\x00\xff"),
        "raw": b"\x01",
        "nan": float("nan"),
        "infinite": float("-inf"),
        "views": Int64(7),
        "score": 0.25,
        "seen": True,
        "nothing": None,
        "stamp": Timestamp(0, 1),
        "code": Code("f()"),
        "regex": Regex("^a"),
        "uuid": uuid.UUID(int=1),
        "key": MinKey(),
        "author": DBRef("users", post_id),
        "nested": {"ids": [post_id, {"embedding": "kept: not the vector"}]},
    }
    safe = json_safe(document)
    assert safe == {
        "_id": str(post_id),
        "created": "2026-01-02T03:04:05.678Z",
        "zoned": "2026-01-01T20:00:00.000Z",
        "far": 10**15,
        "price": "1.10",
        "image": "AP8=",
        "raw": "AQ==",
        "nan": None,
        "infinite": None,
        "views": 7,
        "score": 0.25,
        "seen": True,
        "nothing": None,
        "stamp": "1970-01-01T00:00:00.000Z",
        "code": "f()",
        "regex": "^a",
        "uuid": str(uuid.UUID(int=1)),
        "key": "MinKey()",
        "author": {"$ref": "users", "$id": str(post_id)},
        "nested": {"ids": [str(post_id), {"embedding": "kept: not the vector"}]},
    }
    assert type(safe["views"]) is int
    assert json.loads(orjson.dumps(safe)) == safe


AS_THE_DRIVER = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6) | st.just("embedding")
MOMENTS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))  # noqa: DTZ001 (naive, as they are decoded)
VALUES: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=9)
    | st.binary(max_size=9)
    | MOMENTS
    | st.builds(ObjectId, st.binary(min_size=12, max_size=12))
    | st.builds(Binary, st.binary(max_size=9), st.sampled_from([0, 5, 9, 128]))
    | st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 9))
    | st.builds(DatetimeMS, st.integers(-(2**63), 2**63 - 1))
    | st.builds(Regex, st.sampled_from(["a", "", "^é"]), st.sampled_from(["", "i"]))
    | st.sampled_from([Decimal128("NaN"), Decimal128("1E+6000"), Int64(-1), MinKey(), DBRef("a", 1), Code("f()", {})]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_whatever_the_database_holds_can_be_sent_as_json(document: dict[str, object]) -> None:
    stored = bson.decode(bson.encode(document), codec_options=AS_THE_DRIVER)
    safe = json_safe(stored)
    assert json.loads(json.dumps(safe, allow_nan=False)) == safe
    assert json.loads(orjson.dumps(safe)) == safe
    assert set(safe) == set(document) - {"embedding"}


def test_a_document_as_the_driver_decodes_it() -> None:
    stored = bson.decode(bson.encode({"_id": "a", "when": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "tags": ["x"]}))
    assert json_safe(stored) == {"_id": "a", "when": "2026-01-01T00:00:00.000Z", "tags": ["x"]}
