"""A worker that dies at a given point of a batch, and a model that fails on one text. Real worker, real model."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bson import ObjectId

from faults import effects
from faults.arena import Arena
from faults.ledger import Sent, wait_for
from faults.verdict import judge
from feedmill.contract import ENCODE
from support.amqp import connect

MARK = "MARKED"


@contextmanager
def books_balanced(arena: Arena) -> Iterator[None]:
    """Load during the block, and the accounting after it."""
    began = time.monotonic()
    clean = effects.clean_run(arena)
    arena.start_load()
    yield
    arena.until_healed("end")
    verdict = judge(arena, clean, [], began)
    print(verdict.line(), flush=True)  # noqa: T201
    assert not verdict.violations, "\n".join(verdict.violations[:20])


def send_marked(arena: Arena) -> str:
    """A post whose text makes the model fail; it must become a dead letter."""
    message_id, identifier = str(uuid.uuid4()), str(ObjectId())
    body = json.dumps({"_id": identifier, "content": f"A post that is {MARK}."}).encode()
    with connect(arena.vhost_url) as client:
        client.publish(ENCODE.exchange, ENCODE.queue, body, message_id=message_id, delivery_mode=2)
    arena.ledger.accept(Sent(message_id, "encode", body, "dead", time.monotonic()))
    return message_id


@pytest.mark.full_faults
@pytest.mark.parametrize("point", ["infer", "commit", "written", "ack"])
def test_a_crash_at_this_point_loses_and_doubles_nothing(new_arena: Callable[..., Any], point: str) -> None:
    with new_arena(workers=("encode",)) as arena, books_balanced(arena):
        for after in (2, 5):
            arena.faults["encode"] = {"kill": point, "after": after}
            arena.kill("encode")
            arena.restart_when_ended_without_faults("encode")
            arena.until_healed(f"{point} {after}")


@pytest.mark.full_faults
@pytest.mark.parametrize("fault", ["raise", "memory"])
def test_a_text_that_breaks_the_model_is_buried_alone(new_arena: Callable[..., Any], fault: str) -> None:
    faults = {"encode": {fault: MARK}}
    with new_arena(workers=("encode",), faults=faults) as arena, books_balanced(arena):
        marked = send_marked(arena)
        letter = wait_for(lambda: arena.ledger.first_answer(marked), 90, "the marked post is buried")
        assert letter.headers["x-feedmill-reason"] == "internal_error"
        assert letter.headers["x-feedmill-attempt"] == 5, "it was tried as often as the settings say"


@pytest.mark.full_faults
def test_a_model_that_hangs_fails_livez_and_a_restart_loses_nothing(new_arena: Callable[..., Any]) -> None:
    settings = {"FEEDMILL_STUCK_AFTER_SECONDS": "5", "FEEDMILL_DRAIN_TIMEOUT_SECONDS": "5"}
    with new_arena(workers=("encode",), faults={"encode": {"hang": MARK}}, settings=settings) as arena:
        clean = effects.clean_run(arena)
        arena.start_load()
        began = time.monotonic()
        marked = send_marked(arena)
        process = arena.processes["encode"]
        wait_for(lambda: process.get("/livez")[0] == 503, 60, "stuck, and /livez does not say so")
        assert "infer" in process.get("/livez")[1]
        arena.watch.samples.clear()  # it was truly stuck: these samples were right
        # What a kubelet does then: SIGTERM, which must end it although its model hangs.
        arena.faults.clear()
        arena.ledger.sent[marked] = Sent(marked, "encode", arena.ledger.sent[marked].body, "result", began)
        arena.mix.texts[ENCODE.collection, json.loads(arena.ledger.sent[marked].body)["_id"]] = "unknown"
        arena.terminate("encode")
        arena.until_healed("hang")
        arena.watch.samples[:] = [s for s in arena.watch.samples if s.pid == arena.processes["encode"].process.pid]
        verdict = judge(arena, clean, ["hang"], began)
        of_the_marked = json.loads(arena.ledger.sent[marked].body)["_id"]
        # The clean run knows nothing of this text: its vector is right where it is there at all.
        assert [line for line in verdict.violations if of_the_marked not in line] == []
