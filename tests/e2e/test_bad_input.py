"""Bad input ends as the contract says, nothing is lost, the worker goes on, and good messages are answered in full."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from feedmill.broker.letters import DETAIL, REASON
from feedmill.contract import ENCODE, HINT, TOXIC, Route
from support.amqp import Client, Received, poll
from support.workers import WorkerProcess

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Bad:
    body: bytes
    reason: str
    """What the dead letter says."""
    names: str = ""
    """What its detail names."""


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


ANYWHERE = {
    "not-json": Bad(b"hello", "not_json"),
    "empty-body": Bad(b"", "not_json"),
    "not-utf8": Bad(b'{"_id": "x", "content": "\xff\xfe"}', "not_json"),
    "utf16": Bad('{"_id": "x", "content": "hi"}'.encode("utf-16"), "not_json"),
    "array": Bad(b'[{"_id": "x"}]', "not_object", "array"),
    "null": Bad(b"null", "not_object", "null"),
    "number": Bad(b"42", "not_object"),
    "nested-100000-deep": Bad(b'{"content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
    "nested-1000-deep": Bad(b'{"content": ' + b'{"a":' * 1000 + b"1" + b"}" * 1001, "too_deep"),
    "20-megabytes": Bad(b'{"content": "' + b"x" * 20 * MEGABYTE + b'"}', "too_large", "body"),
    "nan": Bad(b'{"_id": "x", "content": NaN}', "not_json"),
    "gzip": Bad(b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "not_json"),
    "operator-id": Bad(body(_id={"$ne": None}, content="hi"), "bad_id", "_id"),
    "other-operator-id": Bad(body(_id={"$oid": "507f1f77bcf86cd799439011", "$gt": ""}, content="hi"), "bad_id", "_id"),
    "id-number": Bad(body(_id=7, content="hi"), "bad_id", "_id"),
    "id-empty": Bad(body(_id="", content="hi"), "bad_id", "_id"),
    "id-too-long": Bad(body(_id="x" * 257, content="hi"), "bad_id", "_id"),
    "id-array": Bad(body(_id=["507f1f77bcf86cd799439011"], content="hi"), "bad_id", "_id"),
    "huge-integer-id": Bad(b'{"_id": 123456789012345678901234567890, "content": "hi"}', "bad_id", "_id"),
}
WITH_TEXT = {
    "no-content": Bad(body(_id="x"), "missing_field", "content"),
    "content-null": Bad(body(_id="x", content=None), "missing_field", "content"),
    "content-number": Bad(body(_id="x", content=1.5), "wrong_type", "content"),
    "content-object": Bad(body(_id="x", content={"$gt": ""}), "wrong_type", "content"),
    "content-1-megabyte": Bad(body(_id="x", content="x" * MEGABYTE), "too_long", "content"),
}
ONLY = {
    TOXIC: {"bad-comment-id": Bad(body(commentId={"$ne": 1}, content="hi"), "bad_id", "commentId")},
    ENCODE: {
        "no-id": Bad(body(content="hi"), "bad_id", "_id"),
        "empty-content": Bad(body(_id="x", content=" "), "empty_text", "content"),
        "title-array": Bad(body(_id="x", content="hi", title=["t"]), "wrong_type", "title"),
    },
    HINT: {
        "no-id": Bad(body(top_k=3), "bad_id", "_id"),
        "top-k-zero": Bad(body(_id="x", top_k=0), "bad_top_k", "top_k"),
        "top-k-101": Bad(body(_id="x", top_k=101), "bad_top_k", "top_k"),
        "top-k-text": Bad(body(_id="x", top_k="5"), "bad_top_k", "top_k"),
        "top-k-true": Bad(body(_id="x", top_k=True), "bad_top_k", "top_k"),
        "top-k-huge": Bad(b'{"_id": "x", "top_k": 123456789012345678901234567890}', "bad_top_k", "top_k"),
        "embedding-too-short": Bad(body(_id="never-encoded-1", embedding=[0.1] * 3), "bad_embedding", "embedding"),
        "embedding-of-strings": Bad(body(_id="never-encoded-2", embedding=["a"] * 384), "bad_embedding", "embedding"),
    },
}


def cases(route: Route) -> dict[str, Bad]:
    return ANYWHERE | ({} if route is HINT else WITH_TEXT) | ONLY[route]


def good(route: Route, number: int) -> dict[str, Any]:
    """A message that must be answered, with what producers also send: unknown fields, emoji, control characters."""
    text = f"Good message {number} \N{PILE OF POO}\N{ZERO WIDTH JOINER} with \x00\x07\u202e control characters"
    extra = {"unknown": {"deep": [1, 2.5, None]}, "title": "A title", "top_k": 3}
    return {"_id": f"good-{route.worker}-{number}", "content": text, **extra}


@pytest.mark.parametrize("route", [TOXIC, ENCODE, HINT], ids=lambda route: route.worker)
def test_each_bad_message_is_buried_with_its_reason_and_the_good_ones_are_answered(
    client: Client, workers: dict[str, WorkerProcess], database: Database, route: Route
) -> None:
    if route is HINT:
        encode_all(client, [good(ENCODE, number) for number in range(len(cases(route)))])
    bystander = ObjectId()
    for collection in (database.comments, database.posts):
        collection.insert_one({"_id": bystander})
    failed_before = workers[route.worker].metric("feedmill_messages_settled_total", outcome="dead")
    expected = cases(route)
    for number, (name, bad) in enumerate(expected.items()):
        wrong = {"content_type": "image/png", "content_encoding": "br"} if number % 2 else {}
        client.publish(route.exchange, route.queue, bad.body, correlation_id=name, **wrong)
        sample = good(ENCODE if route is HINT else route, number)
        client.publish(route.exchange, route.queue, sample, correlation_id=f"good {number}")
    dead = {letter.properties.correlation_id: letter for letter in client.take(route.dead_queue, len(expected), 60)}
    results = {result.properties.correlation_id: result for result in client.take(route.result_queue, len(expected))}
    assert set(results) == {f"good {number}" for number in range(len(expected))}
    assert set(dead) == set(expected)
    for name, bad in expected.items():
        check_letter(dead[name], bad)
    buried = failed_before + len(dead)
    assert poll(lambda: workers[route.worker].metric("feedmill_messages_settled_total", outcome="dead") == buried)
    assert workers[route.worker].get("/livez")[0] == 200
    assert workers[route.worker].is_ready()
    # An operator that reached the database would have matched these.
    for collection in (database.comments, database.posts):
        assert collection.find_one({"_id": bystander}) == {"_id": bystander}


def check_letter(letter: Received, bad: Bad) -> None:
    headers = letter.properties.headers
    assert headers[REASON] == bad.reason
    assert bad.names in headers[DETAIL]
    assert letter.body == bad.body


def encode_all(client: Client, posts: list[dict[str, Any]]) -> None:
    for post in posts:
        client.publish(ENCODE.exchange, ENCODE.queue, post)
    client.take(ENCODE.result_queue, len(posts))


def test_an_empty_comment_is_clean(client: Client) -> None:
    for number, text in enumerate(["", "   ", "\n\t"]):
        client.publish(TOXIC.exchange, TOXIC.queue, {"content": text}, correlation_id=str(number))
    for result in client.take(TOXIC.result_queue, 3):
        assert (result.json["result"], result.json["labels"]) == ("clean", {})


def test_a_bad_embedding_does_not_matter_where_one_is_stored(client: Client) -> None:
    identifier = str(ObjectId())
    encode_all(client, [{"_id": identifier, "content": "This post has its own vector."}])
    client.publish(HINT.exchange, HINT.queue, {"_id": identifier, "embedding": ["not", "a", "vector"]})
    assert client.take(HINT.result_queue)[0].json["status"] == "success"


def test_a_result_queue_that_nobody_bound_gets_its_results(client: Client) -> None:
    client.channel.queue_unbind(TOXIC.result_queue, TOXIC.exchange, TOXIC.result_queue)
    client.publish(TOXIC.exchange, TOXIC.queue, {"content": "Where does this go?"})
    assert client.take(TOXIC.result_queue)[0].json["text"] == "Where does this go?"


def test_hostile_headers_and_properties_do_no_harm(client: Client) -> None:
    """What the broker would act upon when a message is published again, and headers too large for a frame."""
    hostile: list[dict[str, Any]] = [
        # Known to the default exchange alone, through which letters are published.
        {"headers": {"CC": [TOXIC.retry_queue(1)], "BCC": [TOXIC.retry_queue(2)]}},
        {"headers": {"x-feedmill-attempt": "many", "x-feedmill-first-failed-at": 12}},
        {"headers": {"x-feedmill-attempt": -(2**31)}},
        {"headers": {f"x-{i}": "y" * 1000 for i in range(100)}},
        {"expiration": "3600000", "priority": 9, "reply_to": "nobody", "type": "t", "app_id": "a"},
    ]
    for number, properties in enumerate(hostile):
        client.publish(TOXIC.exchange, TOXIC.queue, b"hostile", correlation_id=f"hostile {number}", **properties)
    client.publish(TOXIC.exchange, TOXIC.queue, {"content": "still here"}, correlation_id="good")
    letters = client.take(TOXIC.dead_queue, len(hostile))
    assert {letter.properties.correlation_id for letter in letters} == {f"hostile {n}" for n in range(len(hostile))}
    assert client.take(TOXIC.result_queue)[0].properties.correlation_id == "good"
    assert client.count(TOXIC.dead_queue) == 0
