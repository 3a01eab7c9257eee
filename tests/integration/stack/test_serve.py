"""``feedmill serve``: three workers in one process, /health on one port, and an end in order."""

from __future__ import annotations

import json

import pytest
from workplace import Workplace

from feedmill_local.ports import accepts, free_ports
from feedmill_local.probing import get


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def answer(port: int, path: str) -> tuple[int, object]:
    found = get(f"http://127.0.0.1:{port}", path)
    return (found[0], json.loads(found[1])) if found else (0, None)


def test_serve_answers_and_stops_in_order(with_own_servers: Workplace, port: int) -> None:
    with with_own_servers.running("serve", "--port", str(port)) as serve:
        serve.until(lambda: answer(port, "/readyz")[0] == 200, "ready")
        assert answer(port, "/health") == (200, {"status": "healthy", "workers": 3, "active_tasks": 3})
        assert answer(port, "/livez")[0] == 200
        assert answer(port, "/encode/readyz")[0] == 200
        metrics = get(f"http://127.0.0.1:{port}", "/metrics")
        assert metrics is not None
        assert all(f'worker="{name}"' in metrics[1] for name in ("toxic", "encode", "hint"))

        status = with_own_servers.status()
        assert status["healthy"], status
        assert {worker["pid"] for worker in status["workers"].values()} == {serve.process.pid}
        up = with_own_servers.run("up", "--detach")
        assert (up.returncode, "`feedmill serve` runs the workers" in up.stderr) == (1, True), up.stderr

        assert serve.stop() == 0, serve.output()
    assert not accepts(port)
    assert not (with_own_servers.state / "stack.json").exists()
    assert with_own_servers.run("down").stdout == "nothing runs\n"


def test_a_worker_without_its_model_makes_it_unhealthy(with_own_servers: Workplace, port: int) -> None:
    with_own_servers.settings["FEEDMILL_MODEL"] = "file:///no/such/model"
    with with_own_servers.running("serve", "--port", str(port)) as serve:
        serve.until(lambda: answer(port, "/hint/readyz")[0] == 200, "hint ready")
        serve.until(
            lambda: answer(port, "/health") == (503, {"status": "unhealthy", "workers": 3, "active_tasks": 1}),
            "toxic and encode ended",
        )
        assert serve.stop() == 1
    assert "/no/such/model" in serve.output()


def test_a_taken_port_is_a_clear_error(with_own_servers: Workplace, port: int) -> None:
    with with_own_servers.running("serve", "--port", str(port)) as serve:
        serve.until(lambda: accepts(port), "listening")
        second = with_own_servers.run("serve", "--port", str(port))
        assert (second.returncode, f"--port {port}: another program" in second.stderr) == (1, True), second.stderr
        assert serve.stop() == 0, serve.output()
