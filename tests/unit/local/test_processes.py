"""Children end when they should, and nobody else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedmill_local.errors import StackError
from feedmill_local.processes import Process, spawn, wait_until

FOREVER = "import signal; print('up', flush=True); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
PARENT = (
    f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {FOREVER!r}]).pid, flush=True); " + FOREVER
)
OWNER = """
import signal, sys
from pathlib import Path
from feedmill_local.processes import spawn
child = spawn([sys.executable, "-c", sys.argv[2]], log=Path(sys.argv[1]), {extra})
print(child.pid, child.started, flush=True)
signal.pause()
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """What a test started: killed at its end, whatever happened."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.kill()


def run(code: str, log: Path, started: list[Process]) -> Process:
    process = spawn([sys.executable, "-c", code], log=log)
    started.append(process)
    assert wait_until(lambda: "up" in log.read_text(), 10)
    return process


def test_stop_ends_a_process_by_sigterm(log: Path, started: list[Process]) -> None:
    process = run(FOREVER, log, started)
    assert process.alive()
    process.stop(grace_seconds=10)
    assert not process.alive()
    assert not Path(f"/proc/{process.pid}").exists()


def test_stop_kills_what_ignores_sigterm(log: Path, started: list[Process]) -> None:
    process = run(DEAF, log, started)
    process.stop(grace_seconds=0.1)
    assert not process.alive()


def test_kill_ends_what_the_process_started_itself(log: Path, started: list[Process]) -> None:
    process = run(PARENT, log, started)
    grandchild = Process.find(int(log.read_text().split()[0]))
    assert grandchild is not None
    os.kill(process.pid, signal.SIGKILL)
    assert wait_until(lambda: not process.alive(), 10)
    assert grandchild.alive()
    process.kill()
    assert not grandchild.alive()


def test_a_recycled_pid_is_never_signalled(log: Path, started: list[Process]) -> None:
    other = run(FOREVER, log, started)
    ours = Process(other.pid, other.started - 1)
    assert not ours.alive()
    ours.stop(grace_seconds=0.1)
    ours.kill()
    assert other.alive()


@pytest.mark.parametrize(("extra", "survives"), [("", False), ("owner_dies=None", True)])
def test_a_child_dies_with_its_owner_unless_told_otherwise(
    extra: str, survives: bool, log: Path, started: list[Process]
) -> None:
    command = [sys.executable, "-c", OWNER.format(extra=extra), str(log), FOREVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = Process(*map(int, owner.stdout.readline().split()))
        started.append(child)
        assert wait_until(lambda: "up" in log.read_text(), 10)
        owner.kill()
    if survives:
        assert child.alive()
    else:
        assert wait_until(lambda: not child.alive(), 10)


def test_a_child_outlives_the_thread_that_started_it(log: Path, started: list[Process]) -> None:
    """The kernel's parent-death signal is about threads; a pool's thread must not take a server with it."""
    thread = threading.Thread(target=lambda: run(FOREVER, log, started))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    with pytest.raises(AssertionError):  # it never dies, and a moment is enough: the signal comes at the thread's end
        assert wait_until(lambda: not started[0].alive(), 0.2)


def test_a_missing_program_is_named(log: Path) -> None:
    with pytest.raises(StackError, match="no program no-such-program"):
        spawn(["no-such-program"], log=log)


def test_find_tells_a_pid_that_nobody_has(log: Path, started: list[Process]) -> None:
    process = run(FOREVER, log, started)
    assert Process.find(process.pid) == process
    process.kill()
    assert Process.find(process.pid) is None
