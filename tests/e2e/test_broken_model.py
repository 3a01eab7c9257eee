"""A model that can't bear one text, in a real process: that text alone fails, and a model that hangs fails liveness."""

from __future__ import annotations

from pathlib import Path

from bson import ObjectId

from feedmill.broker.letters import REASON
from feedmill.contract import ENCODE
from support.amqp import Client, connect, poll
from support.broken_encode import HANGS, RAISES, TOO_MUCH
from support.workers import Servers, worker

GOOD = 20
HERE = Path(__file__).parents[1]


def publish(client: Client, text: str) -> str:
    identifier = str(ObjectId())
    client.publish(ENCODE.exchange, ENCODE.queue, {"_id": identifier, "content": text}, correlation_id=identifier)
    return identifier


def test_one_text_fails_alone_and_a_hanging_model_is_not_alive(servers: Servers, tmp_path: Path) -> None:
    settings = {"FEEDMILL_RETRY_DELAYS_SECONDS": "1", "FEEDMILL_STUCK_AFTER_SECONDS": 20, "PYTHONPATH": HERE}
    with (
        worker("encode", servers, tmp_path, module="support.broken_encode", **settings) as process,
        connect(servers.rabbit_url) as client,
    ):
        process.until_ready()
        bad, good = set(), set()
        for number in range(GOOD):
            good.add(publish(client, f"Good post number {number}."))
            if number in {5, 15}:
                bad.add(publish(client, f"Number {number}: {RAISES if number == 5 else TOO_MUCH}."))
        letters = client.take(ENCODE.dead_queue, len(bad), 60)
        assert {letter.properties.correlation_id for letter in letters} == bad
        assert {letter.properties.headers[REASON] for letter in letters} == {"internal_error"}
        assert {result.json["id"] for result in client.take(ENCODE.result_queue, GOOD, 60)} == good
        assert process.get("/livez")[0] == 200
        hanging = publish(client, HANGS)
        assert poll(lambda: process.get("/livez")[0] == 503, 90), process.tail()
        assert "infer" in process.get("/livez")[1]
        process.kill()  # as Kubernetes does with what is not alive
        assert poll(lambda: client.count(ENCODE.queue) == 1)
        (left,) = client.take(ENCODE.queue)
        assert left.properties.correlation_id == hanging
