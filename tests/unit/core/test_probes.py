"""Health, and the probes that tell it, over real HTTP."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from feedmill.health import HEARTBEAT_STALE_SECONDS, Health
from feedmill.metrics import MetricFamilies, new_metrics, new_registry
from feedmill.probes import ProbeServer, worker_routes

STUCK_SECONDS = 300.0


@dataclass
class Answer:
    status: int
    content_type: str
    text: str

    @property
    def json(self) -> dict[str, object]:
        assert self.content_type == "application/json"
        parsed: dict[str, object] = json.loads(self.text)
        return parsed


class Probed:
    def __init__(self) -> None:
        self.health = Health(("model", "consumer"), STUCK_SECONDS)
        self.metrics = new_metrics("fake")
        routes = worker_routes(self.health, self.metrics.registry, {"worker": "fake"})
        self.server = ProbeServer(routes, "127.0.0.1", 0)

    def get(self, path: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            kind = response.headers.get("Content-Type", "").split(";")[0]
            return Answer(response.status, kind, response.read().decode())
        finally:
            connection.close()


@pytest.fixture
def probed() -> Iterator[Probed]:
    it = Probed()
    it.server.start()
    yield it
    it.server.stop()


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move the clock that Health reads; nothing else reads it meanwhile."""
    real = time.monotonic
    monkeypatch.setattr("feedmill.health.time.monotonic", lambda: real() + seconds)


def test_readyz_says_what_is_missing(probed: Probed) -> None:
    answer = probed.get("/readyz")
    assert answer.status == 503
    assert answer.json == {
        "ready": False,
        "missing": {"model": "starting", "consumer": "starting"},
        "parts": {"model": False, "consumer": False},
    }
    probed.health.set("model", None)
    assert probed.get("/readyz").json["missing"] == {"consumer": "starting"}
    probed.health.set("consumer", None)
    answer = probed.get("/readyz")
    assert (answer.status, answer.json["ready"], answer.json["missing"]) == (200, True, {})
    probed.health.set("consumer", "no session with the broker: cut")
    assert probed.get("/readyz").status == 503


def test_livez_says_nothing_of_dependencies(probed: Probed) -> None:
    answer = probed.get("/livez")
    assert (answer.status, answer.json) == (200, {"live": True, "problems": []})


def test_livez_fails_when_the_heartbeat_is_stale(probed: Probed, monkeypatch: pytest.MonkeyPatch) -> None:
    probed.health.beat()
    with monkeypatch.context() as patch:
        later(patch, HEARTBEAT_STALE_SECONDS - 5)
        assert probed.get("/livez").status == 200
    with monkeypatch.context() as patch:
        later(patch, HEARTBEAT_STALE_SECONDS + 5)
        answer = probed.get("/livez")
        assert answer.status == 503
        assert "event loop: no heartbeat for 35 s" in str(answer.json["problems"])
        probed.health.beat()
        assert probed.get("/livez").status == 200


def test_livez_fails_while_a_batch_is_stuck(probed: Probed, monkeypatch: pytest.MonkeyPatch) -> None:
    with probed.health.running("infer"), probed.health.running("commit"):
        later(monkeypatch, STUCK_SECONDS + 5)
        probed.health.beat()
        answer = probed.get("/livez")
        assert answer.status == 503
        assert "infer: one batch for 305 s, expected less than 300" in str(answer.json["problems"])
    assert probed.get("/livez").status == 200


def test_a_step_that_fails_is_no_longer_running(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health((), STUCK_SECONDS)
    with pytest.raises(ZeroDivisionError), health.running("infer"):
        raise ZeroDivisionError
    later(monkeypatch, STUCK_SECONDS + 5)
    health.beat()
    assert health.liveness() == []


def test_metrics_and_version(probed: Probed) -> None:
    probed.metrics.settled("answered")
    answer = probed.get("/metrics")
    assert (answer.status, answer.content_type) == (200, "text/plain")
    assert 'feedmill_messages_settled_total{outcome="answered",worker="fake"} 1.0' in answer.text
    assert "process_resident_memory_bytes" in answer.text
    assert probed.get("/version").json == {"worker": "fake"}
    assert probed.get("/nothing").status == 404


def test_workers_of_one_process_share_the_families() -> None:
    families = MetricFamilies(new_registry())
    toxic, hint = new_metrics("toxic", families), new_metrics("hint", families)
    toxic.received.inc()
    hint.received.inc(2)
    value = families.registry.get_sample_value
    assert value("feedmill_messages_received_total", {"worker": "toxic"}) == 1
    assert value("feedmill_messages_received_total", {"worker": "hint"}) == 2


def test_a_taken_port_is_an_os_error_that_names_it(probed: Probed) -> None:
    second = ProbeServer([], "127.0.0.1", probed.server.port)
    with pytest.raises(OSError, match=rf"probes: can't listen on 127\.0\.0\.1:{probed.server.port}"):
        second.start()
    second.stop()


def test_an_unknown_host_is_an_os_error() -> None:
    with pytest.raises(OSError, match="probes: can't listen on"):
        ProbeServer([], "999.999.999.999", 0).start()


def test_stop_ends_the_thread_and_frees_the_port() -> None:
    probed = Probed()
    probed.server.start()
    open_connection = http.client.HTTPConnection("127.0.0.1", probed.server.port, timeout=10)
    open_connection.request("GET", "/livez")
    open_connection.getresponse().read()
    probed.server.stop()
    open_connection.close()
    assert "probes" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        probed.get("/livez")
    probed.server.stop()
