"""What the private servers have in common: a folder, programs started one after the other, and their pids on disk."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from feedmill.errors import shorten
from feedmill_local.errors import PortTakenError, StackError
from feedmill_local.locks import locked
from feedmill_local.ports import free_ports, is_free
from feedmill_local.processes import Process, spawn, wait_until

START_TIMEOUT_SECONDS = 90.0
START_ATTEMPTS = 3
TAIL_CHARS = 400
PORT_TAKEN = ("eaddrinuse", "Address already in use", "port is already allocated")
T = TypeVar("T")


def start_lock(folder: Path) -> AbstractContextManager[None]:
    """Held while the server in ``folder`` is started: two processes never start it at once."""
    return locked(folder / "start.lock", 2 * START_TIMEOUT_SECONDS)


def on_new_ports(count: int, start: Callable[[tuple[int, ...]], T]) -> T:
    """``start`` a server on ``count`` free ports; on others, should another program take one in between."""
    for attempts_left in reversed(range(START_ATTEMPTS)):
        try:
            return start(free_ports(count))
        except PortTakenError:
            if not attempts_left:
                raise
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class Program:
    """One program of a server: it is up once ``ready`` holds."""

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str]
    port: int
    ready: Callable[[], bool]
    at_owners_death: signal.Signals = signal.SIGKILL


class Programs:
    """The programs of the server in ``folder``. Their output goes to ``<folder>/<server>.log``."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.log = folder / f"{server}.log"
        self._server = server
        self._pids = folder / "processes.json"
        self._running = self._read()

    def start(self, programs: Sequence[Program], *, outlive: bool) -> None:
        """Start them in this order; when one fails, those before it are killed.

        Raises:
            PortTakenError: another program has one of the ports.
            StackError: they run already, or one did not come up.
        """
        self.check_stopped()
        self._check_ports(programs)
        try:
            for program in programs:
                self._start(program, outlive)
        except BaseException:
            self.kill()
            raise

    def check_stopped(self) -> None:
        """Check that they don't run, and end what a crash may have left of them.

        Raises:
            StackError: they run.
        """
        self._running = self._read()  # another process may have started them
        if self.alive():
            raise StackError(f"{self._server} already runs in {self.folder}: stop it first")
        self.kill()

    def alive(self) -> bool:
        """Whether all of them run."""
        return bool(self._running) and all(process.alive() for process in self._running.values())

    def stop(self, grace_seconds: float) -> None:
        """SIGTERM, the last started first; what has not ended after ``grace_seconds`` is killed."""
        for process in reversed(self._running.values()):
            process.stop(grace_seconds)
        self._forget()

    def kill(self) -> None:
        """SIGKILL for all of them."""
        for process in reversed(self._running.values()):
            process.kill()
        self._forget()

    def _check_ports(self, programs: Sequence[Program]) -> None:
        for program in programs:
            if not is_free(program.port):
                raise PortTakenError(self._taken(f"port {program.port} ({program.name})"))

    def _start(self, program: Program, outlive: bool) -> None:
        offset = self.log.stat().st_size if self.log.exists() else 0
        process = spawn(
            program.command,
            log=self.log,
            environment=program.environment,
            folder=self.folder,
            owner_dies=None if outlive else program.at_owners_death,
        )
        self._running[program.name] = process
        self._write()
        wait_until(lambda: program.ready() or not process.alive(), START_TIMEOUT_SECONDS)
        if not (process.alive() and program.ready()):
            raise self._failure(program.name, offset)

    def _failure(self, name: str, offset: int) -> StackError:
        with self.log.open("rb") as file:
            file.seek(offset)
            text = file.read().decode(errors="replace")
        if any(sign in text for sign in PORT_TAKEN):
            return PortTakenError(self._taken("a port"))
        return StackError(
            f"{self._server}: {name} did not come up; see {self.log}, which ends: {shorten(text[-TAIL_CHARS:])}"
        )

    def _taken(self, what: str) -> str:
        advice = "end that program, or remove the folder to start anew on other ports"
        return f"{what} of {self._server} in {self.folder} is taken by another program: {advice}"

    def _forget(self) -> None:
        if self._running:
            self._running = {}
            self._write()

    def _read(self) -> dict[str, Process]:
        """The pids are kept on disk so that another process can end what outlives its starter."""
        found = json.loads(self._pids.read_text(encoding="utf-8")) if self._pids.is_file() else {}
        return {name: Process(pid, started) for name, (pid, started) in found.items()}

    def _write(self) -> None:
        found = {name: (process.pid, process.started) for name, process in self._running.items()}
        scratch = self._pids.with_suffix(".new")
        scratch.write_text(json.dumps(found), encoding="utf-8")
        scratch.replace(self._pids)
