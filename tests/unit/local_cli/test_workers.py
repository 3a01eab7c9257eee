"""The environment that a worker gets, what is said of its end, and its probes' answers."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from feedmill_local import workers
from feedmill_local.errors import StackError
from feedmill_local.probing import Readiness, metrics_text, readiness
from feedmill_local.processes import Process, spawn, wait_until
from feedmill_local.state import WorkerProcess
from feedmill_local.workers import Interrupted, Servers, environment, how_it_ended, settings_of, tail, wait_ready

SERVERS = Servers("amqp://u:p@127.0.0.1:25672/", "mongodb://127.0.0.1:27018", "feedmill")


def test_a_worker_is_told_where_everything_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_HOST", "other")
    found = environment({}, SERVERS, 24000)
    assert found["RABBITMQ_URL"] == SERVERS.rabbitmq_url
    assert found["MONGO_URI"] == SERVERS.mongo_uri
    assert found["DATABASE_NAME"] == "feedmill"
    assert (found["FEEDMILL_PROBE_HOST"], found["FEEDMILL_PROBE_PORT"]) == ("127.0.0.1", "24000")


def test_the_workers_share_the_cores_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert environment({}, SERVERS, 1)["FEEDMILL_THREADS"] == "4"
    monkeypatch.setenv("FEEDMILL_THREADS", "7")
    found = environment({}, SERVERS, 1)
    assert found["FEEDMILL_THREADS"] == "7"
    assert "OMP_NUM_THREADS" not in found


def test_one_core_is_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert environment({}, SERVERS, 1)["FEEDMILL_THREADS"] == "1"


def test_a_choice_in_the_env_file_stands() -> None:
    Path(".env").write_text("FEEDMILL_THREADS=5\nFEEDMILL_LOG_FORMAT=json\n")
    found = environment({}, SERVERS, 1)
    assert "FEEDMILL_THREADS" not in found  # the worker reads the file itself
    assert "FEEDMILL_LOG_FORMAT" not in found


def test_settings_of_one_worker_only(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("FEEDMILL_TOXIC__MODEL=file:///in/the/file\nFEEDMILL_ENCODE__MODEL=pkg://encoder\n")
    monkeypatch.setenv("FEEDMILL_TOXIC__MODEL", "file:///in/the/environment")
    monkeypatch.setenv("FEEDMILL_TOXIC_LABELS", "HATE")
    assert settings_of("toxic") == {"FEEDMILL_MODEL": "file:///in/the/environment"}
    assert settings_of("encode") == {"FEEDMILL_MODEL": "pkg://encoder"}
    assert settings_of("hint") == {}


def run_to_its_end(code: str, folder: Path) -> Process:
    process = spawn([sys.executable, "-c", code], log=folder / "logs" / "toxic.log")
    assert wait_until(lambda: not process.alive(), 20.0)
    return process


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("pass", "exit code 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "killed by SIGTERM"),
    ],
)
def test_how_a_worker_ended(tmp_path: Path, code: str, said: str) -> None:
    process = run_to_its_end(code, tmp_path)
    assert how_it_ended(process) == said
    assert how_it_ended(process) == said  # asking takes nothing away
    process.kill()


def test_of_a_stranger_the_exit_code_is_not_known() -> None:
    assert how_it_ended(Process(1, 1)) == "exit code unknown"


def test_a_worker_that_ends_while_it_is_awaited_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    process = run_to_its_end("print('no such model'); raise SystemExit(1)", tmp_path)
    ended = {"toxic": WorkerProcess(process.pid, process.started, "http://127.0.0.1:1")}
    with pytest.raises(StackError, match=r"(?s)toxic \(pid \d+\) ended: exit code 1.*no such model"):
        wait_ready(ended, tmp_path, 5.0, lambda _: None, threading.Event())
    process.kill()


def itself(probe_url: str = "http://127.0.0.1:1") -> dict[str, WorkerProcess]:
    process = Process.find(os.getpid())
    assert process is not None
    return {"toxic": WorkerProcess(process.pid, process.started, probe_url)}


def test_waiting_ends_at_the_timeout_and_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"toxic still waits for probes \(no answer yet\)"):
        wait_ready(itself(), tmp_path, 0.01, lambda _: None, threading.Event())


def test_waiting_ends_at_once_when_somebody_asks_to_stop(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        wait_ready(itself(), tmp_path, 60.0, lambda _: None, stop)


@pytest.fixture
def answers() -> dict[str, tuple[int, str]]:
    return {}


@pytest.fixture
def probe_url(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    """A worker's probes, which answer what ``answers`` says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, ""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the standard library)
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/toxic"
    server.shutdown()
    thread.join(5.0)
    server.server_close()


def test_progress_is_said_once_for_each_change(
    tmp_path: Path, probe_url: str, answers: dict[str, tuple[int, str]]
) -> None:
    answers["/toxic/readyz"] = (503, '{"ready": false, "missing": {"model": "loading"}}')
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        answers["/toxic/readyz"] = (200, '{"ready": true, "missing": {}}')

    wait_ready(itself(probe_url), tmp_path, 20.0, say, threading.Event())
    assert said[0] == "toxic: waiting for model (loading)"
    assert said[1].startswith("toxic: ready after ")
    assert len(said) == 2


@pytest.mark.parametrize("body", ["", "null", "[]", '{"missing": 3}', "not json"])
def test_a_strange_answer_is_not_ready(probe_url: str, answers: dict[str, tuple[int, str]], body: str) -> None:
    answers["/toxic/readyz"] = (200, body)
    assert readiness(probe_url) == Readiness(False, {"probes": "unexpected answer, status 200"})


def test_metrics_are_none_where_there_is_no_answer(probe_url: str, answers: dict[str, tuple[int, str]]) -> None:
    assert metrics_text(probe_url) is None
    answers["/toxic/metrics"] = (200, "feedmill_ready 1\n")
    assert metrics_text(probe_url) == "feedmill_ready 1\n"


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path, 3) == []
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert tail(path, 2) == ["line 998", "line 999"]
    assert tail(path, 0) == []


def test_the_names_are_those_of_the_contract() -> None:
    assert set(workers.NAMES) == {"toxic", "encode", "hint"}
