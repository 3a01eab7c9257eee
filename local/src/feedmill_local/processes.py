"""Child processes: started in a session of their own, identified beyond doubt, and stopped with all that they started.

A process is identified by its pid and its start time: a pid alone may belong to someone else by the time it is
signalled. Linux only (``/proc``).
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from feedmill_local.errors import StackError

POLL_SECONDS = 0.02
KILL_TIMEOUT_SECONDS = 10.0


def wait_until(condition: Callable[[], bool], timeout_seconds: float, poll_seconds: float = POLL_SECONDS) -> bool:
    """Ask ``condition`` until it holds; False when it still doesn't after ``timeout_seconds``. Blocks."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_seconds)
    return True


@dataclass(frozen=True)
class Process:
    """One process, alive or not. It leads a session of its own, which is what ``stop`` and ``kill`` end.

    ``started`` is the kernel's start time in clock ticks since boot (proc(5), field 22 of ``stat``).
    """

    pid: int
    started: int

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """The process that has this pid now."""
        stat = _stat(pid)
        return cls(pid, stat.started) if stat else None

    def alive(self) -> bool:
        """Whether it runs. A process that ended and was not waited for does not."""
        stat = _stat(self.pid)
        return stat is not None and stat.started == self.started and stat.state not in "ZX"

    def stop(self, grace_seconds: float = 10.0) -> None:
        """SIGTERM, wait ``grace_seconds`` for the session's leader, then SIGKILL for what is left of the session."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            wait_until(lambda: not self.alive(), grace_seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL for the whole session, and wait until it is gone.

        Raises:
            StackError: something of it is still there after ``KILL_TIMEOUT_SECONDS``.
        """

        def gone() -> bool:
            members = self._session()
            for member in members:
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            return not members

        if not wait_until(gone, KILL_TIMEOUT_SECONDS):
            raise StackError(f"process {self.pid} can't be ended, not even by SIGKILL")
        _reap(self)

    def _session(self) -> list[int]:
        """Living members of its session. The kernel gives a pid to nobody else while a session bears it."""
        leader = _stat(self.pid)
        if leader is not None and leader.started != self.started:
            return []
        pids = (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())  # noqa: PTH208 (names suffice)
        stats = ((pid, _stat(pid)) for pid in pids)
        return [pid for pid, stat in stats if stat and stat.session == self.pid and stat.state not in "ZX"]


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    owner_dies: signal.Signals | None = signal.SIGKILL,
) -> Process:
    """Start ``command`` in a session of its own; its output is appended to ``log``.

    Args:
        owner_dies: the signal that it gets when this process dies, however that happens; None lets it live on. What it
            started itself gets no such signal.

    Raises:
        StackError: there is no such program.
    """
    program = shutil.which(str(command[0]), path=(environment or os.environ).get("PATH"))
    if program is None:
        raise StackError(f"there is no program {command[0]}")
    arguments = [str(Path(program).absolute()), *map(str, command[1:])]
    if owner_dies is not None:
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("deathsig.py"))]
        arguments = [*guard, str(os.getpid()), str(int(owner_dies)), *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = _Spawner.get().start(arguments, output.fileno(), environment, folder)
    process = Process.find(child.pid)
    if process is None:  # impossible before someone waits for it
        raise StackError(f"{command[0]} could not be started")
    _children[process] = child
    return process


@dataclass(frozen=True)
class _Stat:
    state: str
    session: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name, in parentheses, may hold anything
    return _Stat(state=fields[0], session=int(fields[3]), started=int(fields[19]))


# Children of this very process, to be waited for: otherwise they stay in the process table.
_children: dict[Process, subprocess.Popen[bytes]] = {}


def _reap(process: Process) -> None:
    child = _children.pop(process, None)
    if child is not None:
        child.wait(KILL_TIMEOUT_SECONDS)


class _Spawner:
    """Starts children from one thread that lives as long as the process.

    The parent-death signal is sent when the *thread* that started the child ends (prctl(2)); a thread of a pool would
    take its servers with it.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="spawner", daemon=True).start()

    @staticmethod
    @cache
    def get() -> _Spawner:
        return _Spawner()

    def _run(self) -> None:
        while True:
            self._jobs.get()()

    def start(
        self, arguments: list[str], output: int, environment: Mapping[str, str] | None, folder: Path | None
    ) -> subprocess.Popen[bytes]:
        done: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()

        def job() -> None:
            try:
                done.put(
                    subprocess.Popen(
                        arguments,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        cwd=folder,
                        start_new_session=True,
                    )
                )
            except OSError as error:
                done.put(error)

        self._jobs.put(job)
        result = done.get(timeout=30)
        if isinstance(result, OSError):
            raise StackError(f"{arguments[0]} could not be started: {result.strerror}") from result
        return result
