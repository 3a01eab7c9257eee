"""``feedmill`` on a RabbitMQ and a database that the user runs: they are used, and left alone."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from pymongo import MongoClient
from workplace import TIMEOUT_SECONDS, Workplace

from feedmill_local.database import Database
from feedmill_local.ports import free_ports
from feedmill_local.processes import Process, wait_until
from feedmill_local.rabbitmq import RabbitNode

STARTED = "Ctrl-C stops it"


def living(workplace: Workplace) -> list[Process]:
    return [process for process in workplace.processes() if process.alive()]


def test_in_the_foreground_a_dead_worker_is_started_again(
    with_own_servers: Workplace, rabbit_node: RabbitNode, database_server: Database
) -> None:
    workplace = with_own_servers
    with workplace.running("up") as up:
        up.until_said(STARTED)
        assert workplace.stack()["own_servers"] == []
        assert not list(workplace.state.glob("*/processes.json"))
        hint = workplace.pids()["hint"]
        os.kill(hint, signal.SIGKILL)
        up.until_said("hint: ready again")
        assert f"hint (pid {hint}) ended: killed by SIGKILL" in up.output()
        assert workplace.pids()["hint"] != hint
        assert workplace.status()["healthy"]

        second = workplace.run("up", "--detach")
        assert (second.returncode, "runs already" in second.stdout) == (0, True), second.stdout

        workers = living(workplace)
        assert up.stop() == 0, up.output()
    assert len(workers) == 3
    assert not any(worker.alive() for worker in workers)
    assert not (workplace.state / "stack.json").exists()
    assert rabbit_node.alive()
    assert database_server.alive()
    assert "SIGTERM: shutting down" in (workplace.state / "logs" / "toxic.log").read_text()


def test_nothing_outlives_an_up_that_is_killed(with_own_servers: Workplace) -> None:
    with with_own_servers.running("up") as up:
        up.until_said("toxic: started")
        up.until(lambda: len(with_own_servers.pids()) == 3, "three workers")
        workers = living(with_own_servers)
        up.process.kill()
        assert wait_until(lambda: not any(worker.alive() for worker in workers), 60.0)
    assert with_own_servers.run("down").stdout == "nothing runs\n"


def test_interrupted_while_starting_it_stops_what_it_started(with_own_servers: Workplace) -> None:
    with with_own_servers.running("up") as up:
        up.until_said("toxic: started")
        up.until(lambda: len(with_own_servers.pids()) == 3, "three workers")
        workers = living(with_own_servers)
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(60.0) == 1
        assert "everything that was started is stopped" in up.output()
    assert not any(worker.alive() for worker in workers)
    assert not (with_own_servers.state / "stack.json").exists()


def test_two_at_once_are_one_stack(with_own_servers: Workplace) -> None:
    with with_own_servers.running("up", "--detach") as first, with_own_servers.running("up", "--detach") as second:
        outputs = []
        for up in (first, second):
            assert up.process.wait(TIMEOUT_SECONDS) == 0, up.output()
            outputs.append(up.output())
    assert sum("toxic: started" in output for output in outputs) == 1
    assert sum("runs already" in output for output in outputs) == 1
    workers = living(with_own_servers)
    assert with_own_servers.run("down").returncode == 0
    assert len(workers) == 3
    assert not any(worker.alive() for worker in workers)


def test_down_stops_an_up_in_the_foreground(with_own_servers: Workplace) -> None:
    with with_own_servers.running("up") as up:
        up.until_said(STARTED)
        down = with_own_servers.run("down")
        assert (down.returncode, up.process.wait(60.0)) == (0, 0), down.stdout + down.stderr + up.output()
    assert not (with_own_servers.state / "stack.json").exists()


@pytest.mark.parametrize(("name", "scheme"), [("RABBITMQ_URL", "amqp"), ("MONGO_URI", "mongodb")])
def test_a_server_of_the_users_that_is_away_is_a_clear_error(
    with_own_servers: Workplace, name: str, scheme: str
) -> None:
    with_own_servers.settings[name] = f"{scheme}://user:geheim@127.0.0.1:{free_ports(1)[0]}"
    failed = with_own_servers.run("up", "--detach")
    assert failed.returncode == 1
    assert name in failed.stderr
    assert "can't be used" in failed.stderr
    assert "geheim" not in failed.stdout + failed.stderr
    assert not list(with_own_servers.state.glob("*/processes.json"))


def test_looking_changes_nothing(with_own_servers: Workplace, rabbit_node: RabbitNode, database_name: str) -> None:
    status = with_own_servers.status()
    assert not status["healthy"]
    assert "toxic: nobody consumes toxic-detect-queue" in status["problems"]
    assert status["rabbitmq"]["problem"] is None
    assert status["database"]["problem"] is None
    vhost = with_own_servers.settings["RABBITMQ_URL"].rsplit("/", 1)[1]
    assert rabbit_node.ctl("list_queues", "-p", vhost, "name", "--no-table-headers").strip() == ""
    with MongoClient[dict[str, Any]](with_own_servers.settings["MONGO_URI"]) as client:
        assert database_name not in client.list_database_names()


def test_status_watched_without_a_terminal_ends_in_order(with_own_servers: Workplace) -> None:
    with with_own_servers.running("status", "--watch") as watching:
        watching.until_said("toxic-detect-queue")
        watching.process.send_signal(signal.SIGINT)
        assert watching.process.wait(30.0) == 1  # no workers: not well


def test_logs_are_followed(with_own_servers: Workplace) -> None:
    log = with_own_servers.state / "logs" / "toxic.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\n")
    with with_own_servers.running("logs", "toxic", "-f", "-n", "1") as following:
        following.until_said("two\n")
        with log.open("a") as file:
            file.write("three\nunfinished")
        following.until_said("three\n")
        following.process.send_signal(signal.SIGINT)
        assert following.process.wait(30.0) == 0
    assert following.output() == "two\nthree\n"
