"""The state folder: what is written is read again, by its owner only, and a stale one is not believed."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from feedmill_local import state
from feedmill_local.errors import StackError
from feedmill_local.processes import Process, spawn
from feedmill_local.state import Stack, WorkerProcess

RABBITMQ_URL = "amqp://feedmill:geheim@127.0.0.1:25672/%2F"
MONGO_URI = "mongodb://127.0.0.1:27018/?w=majority"
ENDED = WorkerProcess(pid=2**22 - 1, started=1, probe_url="http://127.0.0.1:1")


def itself() -> WorkerProcess:
    process = Process.find(os.getpid())
    assert process is not None
    return WorkerProcess(process.pid, process.started, "http://127.0.0.1:1")


def stack(**workers: WorkerProcess) -> Stack:
    return Stack(RABBITMQ_URL, MONGO_URI, "feedmill", workers)


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    saved = Stack(RABBITMQ_URL, MONGO_URI, "feedmill", {"toxic": ENDED}, ("rabbitmq", "database"), Process(1, 2))
    state.save(tmp_path, saved)
    assert state.load(tmp_path) == saved


def test_the_file_has_the_documented_names(tmp_path: Path) -> None:
    state.save(tmp_path, stack(toxic=ENDED))
    found = json.loads((tmp_path / "stack.json").read_text())
    assert (found["rabbitmq_url"], found["mongo_uri"], found["database"]) == (RABBITMQ_URL, MONGO_URI, "feedmill")
    assert found["workers"]["toxic"] == {"pid": ENDED.pid, "started": 1, "probe_url": "http://127.0.0.1:1"}


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    state.save(folder, stack())
    assert stat.S_IMODE((folder / "stack.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_no_credentials_in_its_repr() -> None:
    assert "geheim" not in repr(stack(toxic=ENDED))


def test_no_stack_is_none_and_forgetting_it_again_does_nothing(tmp_path: Path) -> None:
    assert state.load(tmp_path) is None
    state.save(tmp_path, stack())
    state.forget(tmp_path)
    state.forget(tmp_path)
    assert state.load(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"rabbitmq_url": 1, "workers": []}', "\x00"])
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    with pytest.raises(StackError, match=r"stack\.json: expected what `feedmill up` writes"):
        state.load(tmp_path)


def test_a_stack_of_ended_processes_does_not_run(tmp_path: Path) -> None:
    assert not stack(toxic=ENDED).runs(tmp_path)


def test_one_living_worker_is_a_running_stack_but_not_a_whole_one(tmp_path: Path) -> None:
    half = stack(toxic=itself(), encode=ENDED, hint=ENDED)
    assert half.runs(tmp_path)
    assert not half.is_whole(tmp_path)
    assert stack(toxic=itself(), encode=itself(), hint=itself()).is_whole(tmp_path)


def test_a_stack_whose_workers_were_never_started_is_not_whole(tmp_path: Path) -> None:
    assert not stack().is_whole(tmp_path)


def test_a_recycled_pid_is_not_the_worker(tmp_path: Path) -> None:
    other = WorkerProcess(os.getpid(), started=1, probe_url="http://127.0.0.1:1")
    assert not stack(toxic=other).runs(tmp_path)


def test_a_private_server_that_died_leaves_no_whole_stack(tmp_path: Path) -> None:
    workers = {name: itself() for name in ("toxic", "encode", "hint")}
    assert not Stack(RABBITMQ_URL, MONGO_URI, "feedmill", workers, ("rabbitmq",)).is_whole(tmp_path)


def test_the_endpoints_of_a_running_stack_win_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://other/")
    monkeypatch.setenv("MONGO_URI", "mongodb://other")
    monkeypatch.setenv("DATABASE_NAME", "other")
    state.save(tmp_path, stack(toxic=itself()))
    broker, store = state.endpoints(tmp_path)
    assert broker.amqp_url() == RABBITMQ_URL
    assert (store.uri.get_secret_value(), store.database) == (MONGO_URI, "feedmill")


def test_a_stack_that_is_gone_leaves_the_endpoints_to_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://other/")
    state.save(tmp_path, stack(toxic=ENDED))
    broker, store = state.endpoints(tmp_path)
    assert broker.amqp_url() == "amqp://other/"
    assert store.uri.get_secret_value() == "mongodb://localhost:27017"


def test_the_state_folder_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state.state_folder() == Path.cwd() / ".feedmill"
    monkeypatch.setenv("FEEDMILL_STATE", str(tmp_path / "elsewhere"))
    assert state.state_folder() == tmp_path / "elsewhere"


def test_the_lock_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from feedmill_local.state import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 0.2): pass"
    )
    with state.locked(tmp_path, 1.0):
        process = spawn([sys.executable, "-c", code, tmp_path], log=tmp_path / "log", owner_dies=signal.SIGKILL)
        process_ended = _wait(process)
    assert process_ended != 0
    assert "StackError" in (tmp_path / "log").read_text()


def _wait(process: Process) -> int:
    _, status = os.waitpid(process.pid, 0)
    return os.waitstatus_to_exitcode(status)
