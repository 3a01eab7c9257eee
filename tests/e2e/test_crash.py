"""A worker that is stopped or killed in the middle of a batch loses nothing and doubles nothing in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pymongo
import pytest
from bson import ObjectId

from feedmill.contract import ENCODE
from support.amqp import Client, connect, poll
from support.workers import Servers, WorkerProcess, worker

POSTS = 120


def posts() -> dict[str, str]:
    """Long enough that a batch takes a while."""
    return {
        str(ObjectId()): f"Post number {i}. " + "The quick brown fox jumps over the lazy dog. " * 20
        for i in range(POSTS)
    }


def publish(client: Client, given: dict[str, str]) -> None:
    for identifier, content in given.items():
        client.publish(ENCODE.exchange, ENCODE.queue, {"_id": identifier, "content": content}, delivery_mode=2)


def in_the_middle(process: WorkerProcess) -> bool:
    """Some are answered, some are in the model, some wait."""
    answered = process.metric("feedmill_messages_settled_total", outcome="answered")
    return 0 < answered < POSTS - 20 and process.metric("feedmill_messages_in_flight") > 0


def terminate(process: WorkerProcess) -> None:
    assert process.terminate() == 0, process.tail()


def kill(process: WorkerProcess) -> None:
    process.kill()


@pytest.mark.parametrize("end", [terminate, kill], ids=["SIGTERM", "SIGKILL"])
def test_nothing_is_lost_or_doubled(servers: Servers, tmp_path: Path, end: Callable[[WorkerProcess], None]) -> None:
    given = posts()
    small = {"FEEDMILL_MAX_BATCH_ITEMS": 8, "FEEDMILL_PREFETCH": 32}
    database: pymongo.MongoClient = pymongo.MongoClient(servers.mongo_uri)
    stored = database[servers.database]
    stored.posts.insert_many([{"_id": ObjectId(i), "content": content} for i, content in given.items()])
    with connect(servers.rabbit_url) as client:
        with worker("encode", servers, tmp_path, **small) as first:
            first.until_ready()
            publish(client, given)
            assert poll(lambda: in_the_middle(first)), first.get("/metrics")[1]
            end(first)
        taken_back = client.count(ENCODE.queue)
        assert taken_back > 0
        with worker("encode", servers, tmp_path) as second:
            second.until_ready()
            space = {entry["_id"] for entry in stored.vector_spaces.find()} - {"active"}
            results = client.take(ENCODE.result_queue, POSTS, 120)
            # A result whose ack was lost comes a second time, and can be told by its message_id.
            assert poll(lambda: client.count(ENCODE.queue) == 0 and second.metric("feedmill_messages_in_flight") == 0)
            results += client.take(ENCODE.result_queue, client.count(ENCODE.result_queue))
            assert second.terminate() == 0
        assert client.count(ENCODE.dead_queue) == 0
    by_message_id = {result.properties.message_id: result.json["id"] for result in results}
    assert sorted(by_message_id.values()) == sorted(given)
    if end is terminate:
        assert len(results) == POSTS
    (name,) = space
    embeddings = {str(entry["_id"]): entry["vector"] for entry in stored[f"post_embeddings.{name}"].find()}
    assert set(embeddings) == set(given)
    assert {str(post["_id"]) for post in stored.posts.find({"embedding": {"$exists": True}})} == set(given)
    assert stored.posts.count_documents({}) == POSTS
    database.close()


def test_sigterm_while_the_model_loads_ends_at_once(servers: Servers, tmp_path: Path) -> None:
    with worker("encode", servers, tmp_path) as process:
        assert poll(lambda: process.get("/livez")[0] == 200)
        assert process.terminate() == 0, process.tail()


def test_a_wrong_setting_ends_with_its_name_and_without_its_value(servers: Servers, tmp_path: Path) -> None:
    wrong = {"FEEDMILL_PREFETCH": "s3cr3t", "RABBITMQ_URL": "http://user:pa55@host"}
    with worker("encode", servers, tmp_path, **wrong) as process:
        assert process.process.wait(60) == 2
    told = process.log.read_text()
    assert "FEEDMILL_PREFETCH" in told
    assert "RABBITMQ_URL" in told
    assert "amqp://" in told
    assert "s3cr3t" not in told
    assert "pa55" not in told


def test_a_missing_model_ends_with_what_to_do(servers: Servers, tmp_path: Path) -> None:
    with worker("encode", servers, tmp_path, FEEDMILL_MODEL="hf://owner/name") as process:
        assert process.process.wait(60) == 1
    assert "revision" in process.log.read_text()


def test_a_port_that_is_taken_is_told(servers: Servers, tmp_path: Path) -> None:
    with worker("hint", servers, tmp_path) as first:
        first.until_ready()
        with worker("hint", servers, tmp_path, FEEDMILL_PROBE_PORT=first.port) as second:
            assert second.process.wait(60) == 1
            assert str(first.port) in second.log.read_text()
