"""A real worker with secrets in its settings: none of them is anywhere that others can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pymongo
import pytest

from support.amqp import connect, poll
from support.workers import Servers, WorkerProcess, worker

SECRET = "pa55@w0rd/with:signs"


def everything_told(process: WorkerProcess) -> str:
    """Logs, all probes, and what the process list shows."""
    arguments = Path(f"/proc/{process.process.pid}/cmdline").read_bytes().decode(errors="replace")
    probes = "".join(process.get(path)[1] for path in ("/livez", "/readyz", "/metrics", "/version"))
    return process.log.read_text(errors="replace") + probes + arguments


def wrong_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"feedmill:{quote(SECRET, safe='')}@{host}").geturl()


@pytest.mark.parametrize("level", ["info", "debug"])
def test_refused_logins_are_told_without_the_password_and_not_tried_in_a_hot_loop(
    rabbit_url: str, mongo_uri: str, database_name: str, tmp_path: Path, level: str
) -> None:
    servers = Servers(wrong_password(rabbit_url), mongo_uri, database_name)
    with worker("hint", servers, tmp_path, FEEDMILL_LOG_LEVEL=level, FEEDMILL_RECONNECT_MAX_SECONDS=2) as process:
        assert poll(lambda: process.metric("feedmill_broker_sessions_lost_total") >= 4, 90), process.tail()
        assert "REFUSED" in process.get("/readyz")[1].upper()
        assert process.get("/livez")[0] == 200
        told = everything_told(process)
        # RabbitMQ itself takes a second over each refusal; ours is the back-off on top: 0.2, 0.4, 0.8, 1.6, 2, 2 ...
        lost = [event for event in process.events() if "next try in" in event.get("message", "")]
        delays = [float(event["message"].split("next try in ")[1].split(" s")[0]) for event in lost]
        assert delays[-1] >= 0.8, delays
        assert process.terminate() == 0
        told += process.log.read_text()
    assert SECRET not in told
    assert quote(SECRET, safe="") not in told
    assert "w0rd" not in told


def test_a_working_worker_tells_no_secret_and_no_body(
    rabbit_url: str, mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    password = urlsplit(rabbit_url).password or ""
    spaces = [{"_id": "s", "model": "m", "revision": "r", "dimensions": 3}, {"_id": "active", "space": "s"}]
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as database:
        database[database_name].vector_spaces.insert_many(spaces)
    with worker("hint", Servers(rabbit_url, mongo_uri, database_name), tmp_path, FEEDMILL_LOG_LEVEL="debug") as process:
        with connect(rabbit_url) as client:
            process.until_ready()
            for body in (b"PRIVATE not json", {"_id": "PRIVATE-id", "content": "PRIVATE words", "top_k": 0}):
                client.publish("hint-post-exchange", "hint-post-queue", body)
            client.take("hint-post-queue.dead", 2)
        told = everything_told(process)
        assert process.terminate() == 0
        told += process.log.read_text()
    assert password
    assert password not in told
    assert "PRIVATE words" not in told
    assert "PRIVATE not json" not in told
