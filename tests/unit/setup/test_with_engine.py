"""scripts/with_engine.sh: a private docker engine around a command. Docker's programs are shell scripts here; the real
ones run in `make ci-images`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "with_engine.sh"
# Answers once the engine's folder has the file that the fake engine makes; DOCKER_HOST is unix://FOLDER/docker.sock.
CLIENT = """\
[ "$1" = --version ] && echo "Docker version 20.10.24" && exit
folder=$(dirname "${DOCKER_HOST#unix://}")
[ -e "$folder/up" ] && echo fake
"""
ENGINE = """\
while [ "$1" != --pidfile ]; do shift; done
folder=$(dirname "$2")
echo "$$ $folder" >"$LOG"
trap 'echo stopped >>"$LOG"; exit 0' TERM
: >"$folder/up"
while :; do sleep 0.1; done
"""

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root may start an engine")


@pytest.fixture
def engine(tmp_path):
    """Start the script with these programs in front of the machine's own."""

    def start(*command: str, client: str = CLIENT, daemon: str = ENGINE, **more: str) -> subprocess.Popen[str]:
        for name, body in {"docker": client, "dockerd": daemon}.items():
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{body}")
            path.chmod(0o755)
        environ = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
        environ.pop("DOCKER_HOST", None)
        environ.pop("DOCKER", None)
        pipe = subprocess.PIPE
        # The tests may run in the background of a shell, where ctrl-C is ignored; children inherit that.
        program = ["env", "--default-signal=INT", "bash", str(SCRIPT), *command]
        return subprocess.Popen(program, stdout=pipe, stderr=pipe, text=True, env={**environ, **more})

    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output + errors


def check_stopped(log: Path) -> None:
    first, *rest = log.read_text().splitlines()
    pid, folder = first.split()
    assert rest == ["stopped"]
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(folder).exists()


@pytest.mark.parametrize("status", [0, 7])
def test_the_commands_status_is_passed_on_and_nothing_is_left(engine, tmp_path, status):
    code, text = ended(engine("sh", "-c", f'echo "at $DOCKER_HOST"; exit {status}'))
    assert code == status, text
    assert "at unix:///var/tmp/feedmill-engine." in text
    check_stopped(tmp_path / "log")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interruption_ends_the_command_first_then_the_engine(engine, tmp_path, number, status):
    log = tmp_path / "order"
    script = f'trap "sleep 0.3; cat $LOG >{log}; exit 9" INT; : >{tmp_path}/started; while :; do sleep 0.1; done'
    process = engine("sh", "-c", script)
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    code, text = ended(process)
    assert code == status, text
    assert "stopped" not in log.read_text(), "the engine ended before the command"
    check_stopped(tmp_path / "log")


def test_an_engine_that_does_not_start_is_an_error_with_its_log(engine):
    code, text = ended(engine("true", daemon="echo no such driver\nexit 1\n"))
    assert code == 1
    assert "engine: does not start" in text
    assert "no such driver" in text


def test_one_that_answers_already_is_used_and_left_alone(engine, tmp_path):
    code, text = ended(engine("echo", "ran", client="exit 0\n"))
    assert (code, text.splitlines()) == (0, ["engine: the one that runs", "ran"])
    assert not (tmp_path / "log").exists()


def test_a_named_one_that_does_not_answer_is_an_error(engine, tmp_path):
    code, text = ended(engine("true", client="exit 1\n", DOCKER_HOST="unix:///nowhere"))
    assert code == 1
    assert "none answers at DOCKER_HOST=unix:///nowhere" in text
    assert not (tmp_path / "log").exists()
