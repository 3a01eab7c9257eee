"""The worker's command as a process of its own: arguments, exit codes, signals, with no broker to be had."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from feedmill import __version__

LIMIT_SECONDS = 30.0

ECHO = """
from feedmill.worker import run_worker
from support.echo import EchoHandler, echo_kind
run_worker(echo_kind(EchoHandler()))
"""

LOADING = """
import threading
from contextlib import asynccontextmanager
from feedmill.lane import run_blocking
from feedmill.worker import WorkerKind, run_worker
from support.echo import ROUTE

@asynccontextmanager
async def open_handler(instruments):
    yield await run_blocking(threading.Event().wait, "load")

run_worker(WorkerKind(ROUTE, open_handler, ("database",)))
"""


@contextmanager
def started(script: str, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    # A port that is bound and not listened to refuses connections, and nobody else can take it meanwhile.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "RABBITMQ_URL": f"amqp://user:hunter2@127.0.0.1:{nobody.getsockname()[1]}/",
            "FEEDMILL_PROBE_HOST": "127.0.0.1",
            "FEEDMILL_PROBE_PORT": "0",
            **settings,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        hung = threading.Timer(LIMIT_SECONDS, process.kill)
        hung.start()
        try:
            yield process
        finally:
            hung.cancel()
            process.kill()
            process.communicate(timeout=LIMIT_SECONDS)


def run(script: str, *arguments: str, **settings: str) -> tuple[int, str, str]:
    with started(script, *arguments, **settings) as process:
        output, errors = process.communicate(timeout=LIMIT_SECONDS)
        return process.returncode, output, errors


def wait_for(process: subprocess.Popen[str], pattern: str) -> str:
    """The first log line that matches; fails where the process ends without one."""
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"ended without saying {pattern}")


def get(port: int, path: str) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_help_lists_the_settings_and_version_says_which() -> None:
    code, output, _ = run(ECHO, "--help")
    assert code == 0
    assert "RABBITMQ_URL" in output
    assert "FEEDMILL_MAX_BATCH_ITEMS  [64]" in output
    assert run(ECHO, "--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [("RABBITMQ_PORT", "hunter2"), ("RABBITMQ_URL", "amqp://u:hunter2/x@h"), ("FEEDMILL_LOG_LEVEL", "x")],
)
def test_a_wrong_setting_ends_it_with_2_and_its_name(name: str, value: str) -> None:
    code, _, errors = run(ECHO, **{name: value})
    assert code == 2
    assert f"{name}: " in errors
    assert "hunter2" not in errors
    assert len(errors.splitlines()) == 1


def test_a_taken_probe_port_ends_it_with_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, errors = run(ECHO, FEEDMILL_PROBE_PORT=str(taken.getsockname()[1]))
    assert code == 1
    assert "can't listen on 127.0.0.1" in errors
    assert "Traceback" not in errors


def test_without_a_broker_it_lives_says_so_and_stops_cleanly() -> None:
    with started(ECHO) as process:
        found = re.search(r"127\.0\.0\.1:(\d+)", wait_for(process, "probes listen"))
        assert found is not None
        port = int(found[1])
        line = wait_for(process, "broker session lost")
        assert "hunter2" not in line
        assert get(port, "/livez")[0] == 200
        status, body = get(port, "/readyz")
        assert status == 503
        assert "consumer" in str(body["missing"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_SECONDS) == 0


def test_a_signal_while_the_model_loads_ends_it_at_once() -> None:
    with started(LOADING) as process:
        wait_for(process, "probes listen")
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_SECONDS) == 0
