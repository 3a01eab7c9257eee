"""What real worker processes see to beside their messages: posts follow a switch, orphans go, a snapshot is left."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pymongo
from bson import ObjectId
from bson.binary import Binary, BinaryVectorDtype
from pymongo.database import Database as MongoDatabase

from support.amqp import poll
from support.workers import Servers, worker

POSTS = 40


def add_space(database: MongoDatabase, name: str, ids: list[ObjectId], number: float) -> None:
    vector = Binary.from_vector([number, 1.0, 0.0], BinaryVectorDtype.FLOAT32)
    old = datetime(2026, 1, 1, tzinfo=UTC)
    database[f"post_embeddings.{name}"].insert_many(
        [{"_id": i, "vector": vector, "contentHash": "h", "updatedAt": old} for i in ids]
    )
    space = {"model": "m", "revision": "r", "dimensions": 3, "state": "ready", "createdAt": old}
    database["vector_spaces"].insert_one({"_id": name, **space})


def test_the_encode_worker_lets_posts_follow_a_switch_and_removes_orphans(servers: Servers, tmp_path: Path) -> None:
    ids = [ObjectId() for _ in range(POSTS)]
    with pymongo.MongoClient(servers.mongo_uri) as client:
        database = client[servers.database]
        add_space(database, "former", ids, 1)
        add_space(database, "present", ids, 2)
        gone, there = ids[0], ids[1:]
        database["posts"].insert_many([{"_id": i, "content": "x", "embedding": [1.0, 1.0, 0.0]} for i in there])
        pointer = {"space": "present", "switched": True, "changedAt": datetime(2026, 1, 2, tzinfo=UTC)}
        database["vector_spaces"].insert_one({"_id": "active", **pointer})
        with worker("encode", servers, tmp_path, FEEDMILL_UPKEEP_LOOK_SECONDS=0.2) as encode:
            encode.until_ready()
            assert poll(lambda: database["posts"].count_documents({"embedding": [2.0, 1.0, 0.0]}) == len(there), 60)
            vectors = [database[f"post_embeddings.{name}"] for name in ("former", "present")]
            assert poll(lambda: not any(space.find_one({"_id": gone}) for space in vectors), 60)
            assert [space.count_documents({}) for space in vectors] == [len(there)] * 2
            assert encode.terminate() == 0, encode.tail()


def test_a_hint_worker_that_is_stopped_leaves_a_snapshot_of_what_it_knew(servers: Servers, tmp_path: Path) -> None:
    manifest = tmp_path / "snapshots" / "present" / "manifest.json"
    settings = {"FEEDMILL_INDEX_EXACT_BELOW": 10, "FEEDMILL_INDEX_SNAPSHOT_DIR": tmp_path / "snapshots"}

    def vectors() -> int:
        return int(json.loads(manifest.read_text())["vectors"])

    with pymongo.MongoClient(servers.mongo_uri) as client:
        database = client[servers.database]
        add_space(database, "present", [ObjectId() for _ in range(POSTS)], 1)
        database["vector_spaces"].insert_one({"_id": "active", "space": "present"})
        with worker("hint", servers, tmp_path, **settings) as hint:
            hint.until_ready()
            assert poll(manifest.exists, 30), hint.tail()
            assert vectors() == POSTS
            vector = Binary.from_vector([5.0, 1.0, 0.0], BinaryVectorDtype.FLOAT32)
            database["post_embeddings.present"].insert_one({"_id": ObjectId(), "vector": vector})
            assert poll(lambda: hint.metric("feedmill_index_vectors") == POSTS + 1, 30), hint.tail()
            assert hint.terminate() == 0, hint.tail()
        assert vectors() == POSTS + 1
