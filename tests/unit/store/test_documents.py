from __future__ import annotations

import datetime as dt
import json
import uuid

import bson
import orjson
from bson import Binary, Code, DBRef, Decimal128, Int64, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

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


def test_a_document_as_the_driver_decodes_it() -> None:
    stored = bson.decode(bson.encode({"_id": "a", "when": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "tags": ["x"]}))
    assert json_safe(stored) == {"_id": "a", "when": "2026-01-01T00:00:00.000Z", "tags": ["x"]}
