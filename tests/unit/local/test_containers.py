"""What Docker is asked for, with a stand-in for its client; and what is said where there is no engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedmill_local.containers import Container, require_engine
from feedmill_local.errors import NotInstalledError, StackError

CLIENT = """#!/bin/sh
echo "$@" >> {calls}
{body}
"""


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container("feedmill-x", "mongo:8.0", 20001, 27017, tmp_path / "data", "/data/db", ("--replSet", "feedmill"))


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def client(tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder / "docker"


def answer(client: Path, calls: Path, body: str) -> None:
    client.write_text(CLIENT.format(calls=calls, body=body))
    client.chmod(0o755)


def test_without_docker_the_error_says_so(client: Path) -> None:
    with pytest.raises(NotInstalledError, match=r"no docker on the PATH.*leave out --docker"):
        require_engine()


def test_an_engine_that_does_not_answer_is_an_error(client: Path, calls: Path) -> None:
    answer(client, calls, "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(NotInstalledError, match=r"engine does not answer.*Cannot connect to the Docker daemon"):
        require_engine()


def test_a_missing_image_is_pulled_and_a_leftover_removed(client: Path, calls: Path, container: Container) -> None:
    answer(client, calls, '[ "$1" != image ]')
    container.prepare()
    asked = calls.read_text().splitlines()[1:]
    assert asked == ["rm --force --volumes feedmill-x", "image inspect mongo:8.0", "pull --quiet mongo:8.0"]


def test_a_failed_pull_is_quoted(client: Path, calls: Path, container: Container) -> None:
    answer(client, calls, 'case "$1" in image) exit 1;; pull) echo "no such host" >&2; exit 1;; esac')
    with pytest.raises(StackError, match=r"docker pull mongo:8.0 failed: no such host"):
        container.prepare()


def test_the_container_is_published_on_loopback_and_runs_as_the_user(container: Container, tmp_path: Path) -> None:
    command = container.command()
    assert command[:3] == ["docker", "run", "--rm"]
    assert "127.0.0.1:20001:27017" in command
    assert f"{tmp_path / 'data'}:/data/db" in command
    assert command[-3:] == ["mongo:8.0", "--replSet", "feedmill"]
