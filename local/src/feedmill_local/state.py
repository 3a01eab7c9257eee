"""Where the stack on this machine is: ``stack.json`` in the state folder, which ``feedmill up`` writes.

It holds credentials: only its owner may read it, and it is never printed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from feedmill.contract import ROUTES
from feedmill.settings import BrokerSettings, StoreSettings, read
from feedmill_local import locks
from feedmill_local.errors import StackError
from feedmill_local.processes import Process
from feedmill_local.servers import Programs

FILE = "stack.json"


@dataclass(frozen=True)
class WorkerProcess:
    """A worker's process: its pid and start time identify it (see :class:`Process`)."""

    pid: int
    started: int
    probe_url: str

    @property
    def process(self) -> Process:
        return Process(self.pid, self.started)

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.alive()


@dataclass(frozen=True)
class Stack:
    """What ``feedmill up`` brought up. The URLs hold credentials.

    ``own_servers`` are those of ``rabbitmq`` and ``database`` that were started here; the others are the user's.
    ``supervisor`` is the ``feedmill`` in the foreground that looks after the workers; None after ``--detach``.
    """

    rabbitmq_url: str = field(repr=False)
    mongo_uri: str = field(repr=False)
    database: str
    workers: Mapping[str, WorkerProcess]
    own_servers: tuple[str, ...] = ()
    supervisor: Process | None = None

    def runs(self, folder: Path) -> bool:
        """Whether anything of it runs."""
        processes = [worker.process for worker in self.workers.values()]
        processes += [self.supervisor] if self.supervisor else []
        servers = (Programs(folder / name, name) for name in self.own_servers)
        return any(process.alive() for process in processes) or any(server.alive() for server in servers)

    def is_one_process(self) -> bool:
        """Whether it is `feedmill serve`: all workers in the supervisor itself."""
        return self.supervisor is not None and all(
            worker.pid == self.supervisor.pid for worker in self.workers.values()
        )

    def is_whole(self, folder: Path) -> bool:
        """Whether all of it runs. The user's own servers are not asked."""
        servers = (Programs(folder / name, name) for name in self.own_servers)
        has_workers = all(name in self.workers and self.workers[name].alive() for name in ROUTES)
        return has_workers and all(server.alive() for server in servers)


def state_folder() -> Path:
    """``FEEDMILL_STATE``, or ``.feedmill`` in the working folder."""
    return Path(os.environ.get("FEEDMILL_STATE") or ".feedmill").absolute()


def load(folder: Path) -> Stack | None:
    """The stack that was brought up in ``folder``, whether it still runs or not; None where there is none.

    Raises:
        StackError: the file can't be read, or is not what ``save`` wrote.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return _parse(found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StackError(f"{path}: expected what `feedmill up` writes ({type(error).__name__}); remove it") from error


def save(folder: Path, stack: Stack) -> None:
    """Write it, all or nothing."""
    make_folder(folder)
    scratch = folder / f"{FILE}.new"
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(stack), file, indent=2)
        file.write("\n")
    scratch.replace(folder / FILE)


def forget(folder: Path) -> None:
    """Remove what ``save`` wrote, if it is there."""
    (folder / FILE).unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make the state folder. Nobody else can look into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def endpoints(folder: Path) -> tuple[BrokerSettings, StoreSettings]:
    """Where RabbitMQ and the database are: a running stack's, or else those of the environment and of ``.env``.

    Raises:
        SettingsError: a setting is wrong.
        StackError: the state can't be read.
    """
    stack = load(folder)
    if stack is None or not stack.runs(folder):
        return read(BrokerSettings), read(StoreSettings)
    broker = read(BrokerSettings, url=stack.rabbitmq_url)
    return broker, read(StoreSettings, uri=stack.mongo_uri, database=stack.database)


@contextmanager
def locked(folder: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the folder's lock, so that two commands don't start or stop the stack at once. Ends with the process.

    Raises:
        StackError: another command held it for all of ``timeout_seconds``.
    """
    make_folder(folder)
    with locks.locked(folder / "lock", timeout_seconds):
        yield


def _parse(found: dict[str, Any]) -> Stack:
    supervisor = found["supervisor"]
    return Stack(
        rabbitmq_url=str(found["rabbitmq_url"]),
        mongo_uri=str(found["mongo_uri"]),
        database=str(found["database"]),
        workers={str(name): WorkerProcess(**worker) for name, worker in found["workers"].items()},
        own_servers=tuple(map(str, found["own_servers"])),
        supervisor=Process(**supervisor) if supervisor else None,
    )
