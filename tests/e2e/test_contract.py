"""What producers and consumers that know nothing of Feedmill rely on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bson import ObjectId
from pymongo.database import Database

from feedmill.contract import ENCODE, HINT, TOXIC, Route
from support.amqp import Client, connect, poll
from support.ci import queue_arguments
from support.workers import Servers, WorkerProcess, worker


def ask(client: Client, route: Route, *bodies: object) -> list[dict[str, object]]:
    """Publish, and take as many results."""
    for body in bodies:
        client.publish(route.exchange, route.queue, body)
    return [result.json for result in client.take(route.result_queue, len(bodies))]


@contextmanager
def as_the_first_backends_do(url: str, route: Route) -> Iterator[Client]:
    """A producer that declares durable queues itself, of the kind that the workers are told to make."""
    with connect(url) as client:
        client.channel.exchange_declare(route.exchange, "direct", durable=True)
        for queue in (route.queue, route.result_queue):
            client.channel.queue_declare(queue, durable=True, arguments=queue_arguments())
            client.channel.queue_bind(queue, route.exchange, queue)
        yield client


REQUESTS = [
    pytest.param(TOXIC, b'{"content": "This is a test message"}', id="toxic"),
    pytest.param(
        ENCODE, b'{"_id": "507f1f77bcf86cd799439011", "content": "Sample post content for embedding"}', id="encode"
    ),
]


@pytest.mark.parametrize(("route", "request_body"), REQUESTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_existing_producer_gets_its_answer(
    servers: Servers, tmp_path: Path, route: Route, request_body: bytes, when: str
) -> None:
    """Whether it declares and publishes before the worker's first start or after."""

    def produce() -> None:
        with as_the_first_backends_do(servers.rabbit_url, route) as client:
            client.publish(route.exchange, route.queue, request_body)

    if when == "before":
        produce()
    with worker(route.worker, servers, tmp_path) as process:
        process.until_ready()
        if when == "after":
            produce()
        with connect(servers.rabbit_url) as client:
            result = client.take(route.result_queue)[0].json
        assert process.terminate() == 0
    if route is TOXIC:
        assert (result["commentId"], result["text"]) == (None, "This is a test message")
        assert (result["result"], result["isToxic"]) == ("clean", False)
    else:
        assert (result["id"], result["status"]) == ("507f1f77bcf86cd799439011", "success")


def test_a_toxic_comment_is_judged_and_stored(client: Client, database: Database) -> None:
    rude, kind = ObjectId(), ObjectId()
    database.comments.insert_many([{"_id": rude, "author": "a"}, {"_id": kind, "author": "b"}])
    results = ask(
        client,
        TOXIC,
        {"_id": str(rude), "content": "You are a stupid idiot and everyone hates you"},
        {"commentId": str(kind), "text": "Thank you, this helped me a lot"},
    )
    by_id = {result["commentId"]: result for result in results}
    assert by_id[str(rude)]["result"] == "toxic"
    assert by_id[str(kind)]["result"] == "clean"
    for identifier, result in ((rude, by_id[str(rude)]), (kind, by_id[str(kind)])):
        stored = database.comments.find_one({"_id": identifier})
        assert stored is not None
        assert stored["isToxic"] == result["isToxic"]
        assert stored["toxicity"]["labels"] == result["labels"]
        assert stored["toxicity"]["model"] == result["model"]
        assert stored["toxicity"]["checkedAt"]
        assert stored["author"] in {"a", "b"}
    assert set(by_id[str(rude)]) == {"commentId", "text", "result", "isToxic", "labels", "model"}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("507f1f77bcf86cd799439012", ObjectId("507f1f77bcf86cd799439012")),
        ({"$oid": "507f1f77bcf86cd799439013"}, ObjectId("507f1f77bcf86cd799439013")),
        ("post/42 «ü»", "post/42 «ü»"),
        ("$where", "$where"),
    ],
)
def test_ids_are_taken_as_the_contract_says(client: Client, database: Database, given: object, stored: object) -> None:
    database.comments.insert_one({"_id": stored})
    (result,) = ask(client, TOXIC, {"_id": given, "content": "A perfectly harmless sentence."})
    assert result["commentId"] == str(stored)
    document = database.comments.find_one({"_id": stored})
    assert document is not None
    assert document["isToxic"] is False


def test_a_post_is_encoded_and_no_ghost_is_made(
    client: Client, database: Database, workers: dict[str, WorkerProcess]
) -> None:
    missing_before = workers["encode"].metric("feedmill_documents_missing_total")
    known, unknown = ObjectId(), ObjectId()
    database.posts.insert_one({"_id": known, "content": "Sourdough needs time."})
    results = ask(
        client,
        ENCODE,
        {"_id": str(known), "title": "Bread", "content": "Sourdough needs time."},
        {"_id": str(unknown), "content": "Nobody has stored this post."},
    )
    assert {result["status"] for result in results} == {"success"}
    space = results[0]["space"]
    assert database.vector_spaces.find_one({"_id": "active"})["space"] == space  # type: ignore[index]
    for identifier in (known, unknown):
        document = database[f"post_embeddings.{space}"].find_one({"_id": identifier})
        assert document is not None
        vector = document["vector"].as_vector()
        assert len(vector.data) == 384
        assert math.isclose(sum(x * x for x in vector.data), 1.0, abs_tol=1e-4)
        assert document["contentHash"]
        assert document["updatedAt"]
    post = database.posts.find_one({"_id": known})
    assert post is not None
    assert post["embedding"] == pytest.approx(
        database[f"post_embeddings.{space}"].find_one({"_id": known})["vector"].as_vector().data  # type: ignore[index]
    )
    assert database.posts.find_one({"_id": unknown}) is None
    assert workers["encode"].metric("feedmill_documents_missing_total") == missing_before + 1


def test_similar_posts_are_found_without_the_asking_one(client: Client, database: Database) -> None:
    texts = {
        "cat": "My cat sleeps on the warm radiator all day.",
        "kitten": "The kitten naps in the sun on the window sill.",
        "rust": "The borrow checker rejects two mutable references.",
        "tomato": "Tomato seedlings want light and not too much water.",
    }
    ids = {name: ObjectId() for name in texts}
    database.posts.insert_many([{"_id": ids[name], "content": text, "likes": 3} for name, text in texts.items()])
    ask(client, ENCODE, *({"_id": str(ids[name]), "content": text} for name, text in texts.items()))
    # At once: the hint worker may not have seen the vectors yet, and must answer all the same.
    (result,) = ask(client, HINT, {"_id": str(ids["cat"]), "top_k": 2})
    assert (result["status"], result["id"]) == ("success", str(ids["cat"]))

    def nearest() -> bool:
        (answer,) = ask(client, HINT, {"_id": str(ids["cat"]), "top_k": 3})
        found = [entry["post"]["_id"] for entry in answer["homologous_posts"]]  # type: ignore[attr-defined]
        assert str(ids["cat"]) not in found
        return bool(found) and found[0] == str(ids["kitten"])

    assert poll(nearest)
    (answer,) = ask(client, HINT, {"_id": str(ids["cat"])})
    posts = answer["homologous_posts"]
    scores = [entry["score"] for entry in posts]  # type: ignore[attr-defined]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)
    first = posts[0]["post"]  # type: ignore[index]
    assert first["likes"] == 3
    assert "embedding" not in first


def test_a_hint_for_a_post_that_is_never_encoded_is_answered_so(client: Client) -> None:
    identifier = str(ObjectId())
    (result,) = ask(client, HINT, {"_id": identifier, "content": "not encoded"})
    assert result == {"status": "not_encoded", "id": identifier, "homologous_posts": []}


def test_an_inline_embedding_serves_where_none_is_stored(client: Client, database: Database) -> None:
    (encoded,) = ask(client, ENCODE, {"_id": str(ObjectId()), "content": "Make the space known."})
    stored = ObjectId()
    database.posts.insert_one({"_id": stored, "content": "How to repair a bicycle chain"})
    ask(client, ENCODE, {"_id": str(stored), "content": "How to repair a bicycle chain"})
    vector = database[f"post_embeddings.{encoded['space']}"].find_one({"_id": stored})["vector"].as_vector().data  # type: ignore[index]

    def found() -> bool:
        (result,) = ask(client, HINT, {"_id": str(ObjectId()), "embedding": list(vector), "top_k": 1})
        posts = result["homologous_posts"]
        return bool(posts) and posts[0]["post"]["_id"] == str(stored) and posts[0]["score"] > 0.99  # type: ignore[index]

    assert poll(found)


def test_probes_answer_as_documented(workers: dict[str, WorkerProcess]) -> None:
    for name, process in workers.items():
        assert process.get("/livez") == (200, '{"live":true,"problems":[]}')
        status, body = process.get("/readyz")
        assert (status, json.loads(body)["missing"]) == (200, {})
        assert f'feedmill_consuming{{worker="{name}"}} 1.0' in process.get("/metrics")[1]
        assert json.loads(process.get("/version")[1])["worker"] == name
        assert process.get("/nothing")[0] == 404


def test_logs_are_json_lines_without_bodies_or_credentials(
    client: Client, workers: dict[str, WorkerProcess], shared_servers: Servers
) -> None:
    ask(client, TOXIC, {"content": "a body that must not be logged"})
    secret = shared_servers.rabbit_url.split("://")[1].split("@")[0].split(":")[1]
    for process in workers.values():
        assert process.events()
        text = process.log.read_text()
        assert secret not in text
        assert "must not be logged" not in text
