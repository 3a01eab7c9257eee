"""What messages did to the store, compared document by document with a clean run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from bson import ObjectId
from bson.binary import BinaryVector

from faults.arena import Arena
from faults.traffic import TEXTS
from feedmill.contract import ENCODE, SPACES_COLLECTION, TOXIC, VECTORS_COLLECTION_PREFIX

SCORE_TOLERANCE = 2e-3
COSINE_TOLERANCE = 1e-4
"""A text's figures depend a little on what it was batched with: padding changes the order of additions."""


@dataclass(frozen=True)
class Clean:
    """What each text leads to when nothing fails."""

    vectors: dict[str, Any]
    labels: dict[str, dict[str, float]]
    verdicts: dict[str, bool]


def clean_run(arena: Arena) -> Clean:
    """Send each text once, before any fault, and read what the workers wrote."""
    route_of = {ENCODE.collection: ENCODE, TOXIC.collection: TOXIC}
    ids: dict[tuple[str, str], ObjectId] = {}
    from support.amqp import connect

    with connect(arena.vhost_url) as client:
        for collection, route in route_of.items():
            if route.worker not in arena.workers:
                continue
            for number, text in enumerate(TEXTS):
                identifier = ObjectId(f"{'aa' if route is ENCODE else 'bb'}{number:022x}")
                ids[collection, text] = identifier
                arena.store[collection].insert_one({"_id": identifier, "by": "clean"})
                client.publish(route.exchange, route.queue, {"_id": str(identifier), "content": text})
            client.take(route.result_queue, len(TEXTS), 120)
    vectors, labels, verdicts = {}, {}, {}
    for (collection, text), identifier in ids.items():
        found = arena.store[collection].find_one({"_id": identifier}) or {}
        if collection == ENCODE.collection:
            vectors[text] = np.array(found["embedding"], np.float64)
        else:
            labels[text], verdicts[text] = found["toxicity"]["labels"], found["isToxic"]
    for collection, _ in ids:
        arena.store[collection].delete_many({"by": "clean"})
    for name in arena.store.list_collection_names():
        if name.startswith(VECTORS_COLLECTION_PREFIX):
            arena.store[name].delete_many({"_id": {"$in": list(ids.values())}})
    return Clean(vectors, labels, verdicts)


def violations(arena: Arena, clean: Clean) -> list[str]:
    """Effects that are missing, wrong or too many."""
    answered = {(sent.worker, json.loads(sent.body)["_id"]) for sent in arena.ledger.sent.values() if _has_effect(sent)}
    comments = {i for worker, i in answered if worker == "toxic"}
    posts = {i for worker, i in answered if worker == "encode"}
    return [
        *_comment_violations(arena, clean, comments),
        *_post_violations(arena, clean, posts),
        *_vector_violations(arena, clean, posts),
        *_ghosts(arena),
    ]


def _has_effect(sent: Any) -> bool:
    return sent.expects == "result" and sent.worker in {"toxic", "encode"}


def _comment_violations(arena: Arena, clean: Clean, wanted: set[str]) -> list[str]:
    wrong = []
    for comment in arena.store[TOXIC.collection].find():
        identifier = str(comment["_id"])
        if "toxicity" not in comment:
            if identifier in wanted:
                wrong.append(f"comment {identifier} was answered and is not judged")
            continue
        text = arena.mix.texts[TOXIC.collection, identifier]
        if comment["isToxic"] != clean.verdicts[text] or not _close(comment["toxicity"]["labels"], clean.labels[text]):
            wrong.append(f"comment {identifier} is judged otherwise than in the clean run: {comment['toxicity']}")
        if set(comment) != {"_id", "by", "isToxic", "toxicity"}:
            wrong.append(f"comment {identifier} has other fields than it should: {sorted(comment)}")
    return wrong


def _close(one: dict[str, float], other: dict[str, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[label] - other[label]) <= SCORE_TOLERANCE for label in one)


def _post_violations(arena: Arena, clean: Clean, wanted: set[str]) -> list[str]:
    wrong = []
    for post in arena.store[ENCODE.collection].find():
        identifier = str(post["_id"])
        if "embedding" not in post:
            if identifier in wanted:
                wrong.append(f"post {identifier} was answered and has no embedding")
        elif not _same(np.array(post["embedding"]), clean, arena.mix.texts[ENCODE.collection, identifier]):
            wrong.append(f"post {identifier} has another embedding than in the clean run")
    return wrong


def _vector_violations(arena: Arena, clean: Clean, wanted: set[str]) -> list[str]:
    wrong, seen = [], set()
    spaces = [name for name in arena.store.list_collection_names() if name.startswith(VECTORS_COLLECTION_PREFIX)]
    if len(spaces) > 1:
        wrong.append(f"more than one space: {spaces}")
    for space in spaces:
        for entry in arena.store[space].find():
            identifier = str(entry["_id"])
            seen.add(identifier)
            vector: BinaryVector = entry["vector"].as_vector()
            text = arena.mix.texts.get((ENCODE.collection, identifier))
            if text is None or not _same(np.array(vector.data), clean, text):
                wrong.append(f"vector {identifier} is another than in the clean run, or nobody's")
    return [*wrong, *(f"post {identifier} was answered and has no vector" for identifier in sorted(wanted - seen))]


def _same(vector: Any, clean: Clean, text: str) -> bool:
    expected = clean.vectors.get(text)
    if expected is None or vector.shape != expected.shape:
        return False
    cosine = float(vector @ expected / (np.linalg.norm(vector) * np.linalg.norm(expected)))
    return cosine >= 1 - COSINE_TOLERANCE


def _ghosts(arena: Arena) -> list[str]:
    """Documents that the backend did not make."""
    ghosts = [
        f"{collection} has a document that nobody made: {document['_id']}"
        for collection in (TOXIC.collection, ENCODE.collection)
        for document in arena.store[collection].find({"by": {"$exists": False}})
    ]
    if arena.store[SPACES_COLLECTION].count_documents({"_id": "active"}) > 1:
        ghosts.append("more than one pointer to the active space")
    return ghosts
