"""``feedmill up`` where nothing is configured: all is started here, repaired here, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import stat

from workplace import Workplace

from feedmill_local.processes import Process, wait_until


def kill(pid: int) -> None:
    process = Process.find(pid)
    assert process is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not process.alive(), 10.0)


def test_up_repair_and_down(workplace: Workplace) -> None:
    started = workplace.run("up", "--detach")
    assert started.returncode == 0, started.stdout + started.stderr
    stack = workplace.stack()
    assert stack["own_servers"] == ["rabbitmq", "database"]
    assert stack["database"] == "feedmill"
    assert stat.S_IMODE((workplace.state / "stack.json").stat().st_mode) == 0o600
    password = stack["rabbitmq_url"].split("@")[0].rsplit(":", 1)[1]
    assert password not in started.stdout + started.stderr + workplace.run("status").stdout

    status = workplace.status()
    assert status["healthy"], status
    assert set(status["workers"]) == {"toxic", "encode", "hint"}
    for worker in status["workers"].values():
        assert worker["ready"]
        assert [queue["consumers"] for queue in worker["queues"].values() if queue["role"] == "input"] == [1]

    again = workplace.run("up", "--detach")
    assert (again.returncode, "runs already" in again.stdout) == (0, True), again.stdout + again.stderr
    assert workplace.stack() == stack

    before = workplace.pids()
    kill(before["hint"])
    status = workplace.status()
    assert not status["healthy"]
    assert f"hint: pid {before['hint']} has ended" in status["problems"]
    repaired = workplace.run("up", "--detach")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    after = workplace.pids()
    assert after["hint"] != before["hint"]
    assert (after["toxic"], after["encode"]) == (before["toxic"], before["encode"])

    processes = workplace.processes()
    assert len(processes) == 6  # three workers, RabbitMQ with its port mapper, and the database
    assert "hint" in workplace.run("logs", "-n", "1").stdout
    down = workplace.run("down", "--purge")
    assert down.returncode == 0, down.stdout + down.stderr
    assert not any(process.alive() for process in processes)
    assert {path.name for path in workplace.state.iterdir()} == {"lock"}
    assert workplace.run("down").stdout == "nothing runs\n"


def test_a_worker_that_cannot_start_takes_down_what_was_started(workplace: Workplace) -> None:
    workplace.settings = {"FEEDMILL_TOXIC__MODEL": "file:///no/such/model"}
    failed = workplace.run("up", "--detach")
    assert failed.returncode == 1
    assert "exit code 1" in failed.stderr
    assert "/no/such/model" in failed.stderr  # the last lines of its log
    assert not (workplace.state / "stack.json").exists()
    assert [path.read_text() for path in workplace.state.glob("*/processes.json")] == ["{}", "{}"]
    assert workplace.run("down").stdout == "nothing runs\n"
