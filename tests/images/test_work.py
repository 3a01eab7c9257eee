"""Each image does its work, run as the chart would run it: real broker, real database, restricted, within its limit."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from feedmill.contract import ENCODE, HINT, ROUTES, TOXIC
from support.amqp import Client, connect, poll
from support.images import WorkerContainer, container, docker
from support.workers import Servers

WORK_SECONDS = 120.0
POSTS = [
    {"_id": f"{number:024x}", "content": f"{subject} number {number}: a few words about it."}
    for number, subject in enumerate(["Sourdough bread", "Rye bread", "A bicycle", "A racing bike"] * 5)
]


@contextmanager
def probed_all_the_time(running: WorkerContainer) -> Iterator[list[int]]:
    """Ask /livez again and again meanwhile; the answers' status codes."""
    answers: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(running.get("/livez")[0])
            done.wait(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join()


def publish(client: Client, worker: str, bodies: list[dict[str, object]]) -> None:
    route = ROUTES[worker]
    for body in bodies:
        client.publish(route.exchange, route.queue, body)


@pytest.mark.parametrize("route", [TOXIC, ENCODE], ids=lambda route: route.worker)
def test_works_answers_probes_meanwhile_and_drains_under_load(servers: Servers, route, record_property) -> None:
    with container(route.worker, servers) as running, connect(servers.rabbit_url) as client:
        record_property("start_to_ready_seconds", round(running.until_ready(), 1))
        texts = [{"_id": f"{number:024x}", "content": f"word {number} " * 150} for number in range(400)]
        with probed_all_the_time(running) as answers:
            publish(client, route.worker, texts)
            taken = client.take(route.result_queue, 50, WORK_SECONDS)
            running.signal_term()
            code = running.wait()
        assert code == 0, running.tail()
        assert not running.state()["OOMKilled"]
        # Once the process is gone nobody answers; as long as it answered, it was alive.
        assert set(answers) <= {200, 0}
        assert answers.count(200) >= 5
        left = client.count(route.queue)
        assert poll(lambda: client.count(route.result_queue) + client.count(route.queue) + len(taken) >= len(texts))
        assert left + client.count(route.result_queue) + len(taken) == len(texts), "lost or doubled in a clean drain"


def test_posts_that_encode_stored_are_found_by_hint(servers: Servers) -> None:
    with connect(servers.rabbit_url) as client, container("hint", servers) as hint:
        with container("encode", servers) as encode:
            encode.until_ready()
            publish(client, "encode", POSTS)
            client.take(ENCODE.result_queue, len(POSTS), WORK_SECONDS)
            assert encode.terminate() == 0
        hint.until_ready()
        publish(client, "hint", [{"_id": POSTS[0]["_id"], "top_k": 3}])
        (answer,) = client.take(HINT.result_queue, 1, WORK_SECONDS)
        assert answer.json["status"] == "success"
        assert hint.terminate() == 0


def test_hint_answers_probes_and_drains_under_load(servers: Servers, record_property) -> None:
    with connect(servers.rabbit_url) as client, container("hint", servers) as hint:
        record_property("start_to_ready_seconds", round(hint.until_ready(), 1))
        vector = [0.1] * 384
        with probed_all_the_time(hint) as answers:
            publish(client, "hint", [{"_id": f"{n:024x}", "embedding": vector, "top_k": 100} for n in range(300)])
            assert poll(lambda: hint.metric("feedmill_received_total") >= 1 or len(answers) > 20)
            assert hint.terminate() == 0
        assert set(answers) <= {200, 0}
        assert answers.count(200) >= 1


@pytest.mark.parametrize("worker", ["toxic", "encode", "hint"])
def test_the_health_check_says_what_livez_says(servers: Servers, worker: str) -> None:
    with container(worker, servers) as running:
        assert poll(lambda: running.get("/livez")[0] == 200)
        (check,) = json.loads(docker("inspect", "--format", "[{{json .Config.Healthcheck.Test}}]", running.container))
        assert check[0] == "CMD"
        docker("exec", running.container, *check[1:])
        with pytest.raises(AssertionError, match="Connection refused"):
            docker("exec", "--env", "FEEDMILL_PROBE_PORT=1", running.container, *check[1:])


@pytest.mark.parametrize("worker", ["toxic", "encode", "hint"])
def test_the_largest_allowed_messages_fit_the_memory_limit(servers: Servers, worker: str, record_property) -> None:
    """Twice as many messages as a worker holds at once, each almost as large as is allowed, each text as long.

    ``toxic`` judges 32 windows of each, a second of two cores: some answers are enough, it holds its fill meanwhile.
    """
    text = "A sentence of many words. " * 3840  # 99 840 of 100 000 characters
    filler = "x" * (1_048_000 - len(text))
    bodies: list[dict[str, object]] = [
        {"_id": f"{number:024x}", "content": text, "filler": filler} for number in range(256)
    ]
    assert 1_040_000 < len(json.dumps(bodies[0])) <= 1_048_576
    route = ROUTES[worker]
    with container(worker, servers, FEEDMILL_RETRY_DELAYS_SECONDS="1") as running:
        running.until_ready()
        with connect(servers.rabbit_url) as client:
            publish(client, worker, bodies)
            client.take(route.result_queue, 40 if worker == "toxic" else len(bodies), WORK_SECONDS)
        record_property("peak_mb", running.peak_mb())
        assert running.terminate() == 0
        assert not running.state()["OOMKilled"]


@pytest.mark.parametrize("worker", ["toxic", "encode", "hint"])
def test_sigterm_while_it_starts_ends_it_soon(servers: Servers, worker: str) -> None:
    """As process 1, a program without a handler would ignore the signal until it is killed."""
    with container(worker, servers) as running:
        assert poll(running.takes_sigterm)
        running.signal_term()
        assert running.wait(5) == 0
