"""Makefile and .ci/run: every target explained and runnable, failures passed on, no process left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
MAKEFILE = (REPOSITORY / "Makefile").read_text().replace("\\\n", " ")  # continued lines are one
TARGETS = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[0].split()

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


def make(*arguments: str) -> str:
    """What make prints. The variables of a make that runs these tests would change that."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, env=environ, check=True
    )
    return done.stdout


@needs_make
def test_help_is_the_default_and_explains_every_target():
    assert [line.split()[1] for line in make().splitlines()] == TARGETS


@needs_make
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_made(target):
    make("-n", target)


@pytest.fixture
def ci(tmp_path):
    """Run a copy of .ci/run in a folder of its own, with ``make`` replaced by the given shell script."""
    script = tmp_path / "clone" / ".ci" / "run"
    script.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci" / "run", script)
    fake = tmp_path / "bin" / "make"
    fake.parent.mkdir()

    def start(body: str) -> subprocess.Popen[str]:
        fake.write_text(f"#!/bin/sh\ncd '{tmp_path}'\n{body}\n")
        fake.chmod(0o755)
        environ = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
        environ.pop("CI", None)
        pipe = subprocess.PIPE
        # Tests that run in a shell's background inherit that INT is ignored, and no trap could catch it.
        program = ["env", "--default-signal=INT", "bash", str(script)]
        return subprocess.Popen(program, stdout=pipe, stderr=pipe, text=True, env=environ)

    def run(body: str, meanwhile=lambda process: None) -> subprocess.CompletedProcess[str]:
        with start(body) as process:
            meanwhile(process)
            output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


def test_ci_runs_the_steps_in_order_without_a_terminal(ci):
    done = ci('echo "$1 CI=$CI input=$(wc -c)"')
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stdout.splitlines() if not line.startswith("ci: ")]
    assert steps == [f"{step} CI=true input=0" for step in ("setup-dev", "lint", "test", "bench-quick", "ci-images")]


def test_ci_stops_at_the_first_failure_with_its_status(ci, tmp_path):
    done = ci('echo "$1" >>steps; [ "$1" != lint ] || exit 3')
    assert done.returncode == 3
    assert (tmp_path / "steps").read_text().split() == ["setup-dev", "lint"]


@pytest.mark.parametrize(("status", "first"), [(0, "trap '' TERM"), (2, ":")])
def test_ci_leaves_no_process_behind(ci, tmp_path, status, first):
    stray = f'setsid sh -c "{first}; echo \\$\\$ >>pids; while :; do sleep 1; done" >/dev/null 2>&1 &'
    wait = "while ! [ -s pids ]; do sleep 0.05; done"
    done = ci(f'[ "$1" = test ] || exit 0\n{stray}\n{wait}\nexit {status}')
    assert done.returncode == status
    assert "left behind" in done.stdout
    deadline = time.monotonic() + 10
    for pid in (tmp_path / "pids").read_text().split():
        while running(int(pid)):
            assert time.monotonic() < deadline, f"process {pid} still runs"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ci_passes_an_interruption_on_and_waits_for_the_step(ci, tmp_path, number, status):
    """A step that runs servers stops them itself: nothing has to be killed."""

    def interrupt(process):
        deadline = time.monotonic() + 30
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)

    body = 'trap "sleep 0.5; echo stopped >>done; exit 9" INT\necho >>started\nwhile :; do sleep 0.1; done'
    done = ci(body, interrupt)
    assert done.returncode == status
    assert (tmp_path / "done").read_text() == "stopped\n"
    assert "left behind" not in done.stdout


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # an ended process that nobody waited for has none
    except (FileNotFoundError, ProcessLookupError):
        return False
