"""The workers as processes on this machine, as in production: one process each, with probes on a port of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from feedmill.contract import ROUTES
from feedmill.settings import LogSettings, ModelSettings, read
from feedmill_local.errors import StackError
from feedmill_local.ports import LOOPBACK, free_ports
from feedmill_local.probing import NO_ANSWER, Readiness, readiness
from feedmill_local.processes import Process, spawn
from feedmill_local.state import WorkerProcess

Say = Callable[[str], None]
"""Takes one line about how things go."""

NAMES = tuple(ROUTES)
LOGS = "logs"
GRACE_SECONDS = 30.0  # as a pod's: above the workers' own drain timeout
READY_POLL_SECONDS = 0.2
TAIL_LINES = 15
# Torch, OpenMP and NumPy's BLAS each take a thread per core otherwise, and three workers share the cores here.
THREAD_VARIABLES = ("FEEDMILL_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Interrupted(StackError):
    """Somebody asked to stop while things were starting."""


@dataclass(frozen=True)
class Servers:
    """What the workers connect to. The URLs hold credentials. ``own``: those that were started here."""

    rabbitmq_url: str
    mongo_uri: str
    database: str
    own: tuple[str, ...] = ()


def log_file(folder: Path, name: str) -> Path:
    """Where the output of a worker goes."""
    return folder / LOGS / f"{name}.log"


def start_worker(name: str, servers: Servers, folder: Path, *, outlive: bool) -> WorkerProcess:
    """Start a worker and answer at once: it takes seconds to become ready.

    Args:
        outlive: whether it goes on when this process ends; otherwise it drains and ends then.
    """
    port = free_ports(1)[0]
    process = spawn(
        [sys.executable, "-m", f"feedmill_{name}"],
        log=log_file(folder, name),
        environment=environment(settings_of(name), servers, port),
        owner_dies=None if outlive else signal.SIGTERM,
    )
    return WorkerProcess(process.pid, process.started, f"http://{LOOPBACK}:{port}")


def environment(own_settings: Mapping[str, str], servers: Servers, probe_port: int) -> dict[str, str]:
    """The environment of a worker: this process's, its own settings, where to connect, and where its probes listen."""
    return {
        **fitting_settings(),
        **os.environ,
        **own_settings,
        **addresses(servers),
        "FEEDMILL_PROBE_HOST": LOOPBACK,
        "FEEDMILL_PROBE_PORT": str(probe_port),
    }


def addresses(servers: Servers) -> dict[str, str]:
    """The settings that say where to connect."""
    return {
        "RABBITMQ_URL": servers.rabbitmq_url,
        "MONGO_URI": servers.mongo_uri,
        "DATABASE_NAME": servers.database,
    }


def fitting_settings() -> dict[str, str]:
    """What suits three workers on one machine, where the user did not choose."""
    fitting: dict[str, str] = {}
    if "threads" not in read(ModelSettings).model_fields_set:
        fitting = dict.fromkeys(THREAD_VARIABLES, str(threads_each()))
    if "log_format" not in read(LogSettings).model_fields_set:
        fitting["FEEDMILL_LOG_FORMAT"] = "text"
    return fitting


def settings_of(name: str) -> dict[str, str]:
    """Settings of one worker only, from the environment and ``.env``.

    ``FEEDMILL_TOXIC__MODEL`` is toxic's ``FEEDMILL_MODEL``.
    """
    prefix = f"FEEDMILL_{name.upper()}__"
    given = {**dotenv_values(".env"), **os.environ}
    return {
        f"FEEDMILL_{variable.removeprefix(prefix)}": value
        for variable, value in given.items()
        if variable.startswith(prefix) and value
    }


def threads_each() -> int:
    """Compute threads for each worker: half of the usable cores, as two of the three run a model."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def stop_workers(workers: Mapping[str, WorkerProcess]) -> None:
    """SIGTERM for all at once; each has its grace period to drain, then SIGKILL."""
    if workers:
        with ThreadPoolExecutor(len(workers)) as pool:
            list(pool.map(lambda worker: worker.process.stop(GRACE_SECONDS), workers.values()))


def wait_ready(
    workers: Mapping[str, WorkerProcess], folder: Path, timeout_seconds: float, say: Say, stop: threading.Event
) -> None:
    """Wait until all are ready, saying what is awaited whenever that changes.

    Raises:
        StackError: one has ended, or they are not ready in time. The text ends with the last lines of its log.
        Interrupted: ``stop`` was set.
    """
    began = time.monotonic()
    said: dict[str, Readiness] = dict.fromkeys(workers, Readiness(False, NO_ANSWER))
    waiting = dict(workers)
    while waiting:
        for name, worker in list(waiting.items()):
            if not worker.alive():
                raise StackError(death_notice(name, worker.process, folder))
            now = readiness(worker.probe_url)
            if now != said[name]:
                after = f" after {time.monotonic() - began:.1f} s" if now.ready else ""
                say(f"{name}: {'' if now.ready else 'waiting for '}{now}{after}")
            said[name] = now
            if now.ready:
                del waiting[name]
        if waiting and time.monotonic() - began > timeout_seconds:
            raise StackError(_too_slow(waiting, said, timeout_seconds, folder))
        if waiting and stop.wait(READY_POLL_SECONDS):
            raise Interrupted("interrupted while the workers were starting")


def death_notice(name: str, process: Process, folder: Path) -> str:
    """How a worker ended, and the last lines of its log."""
    return f"{name} (pid {process.pid}) ended: {how_it_ended(process)}.\n{log_tail(log_file(folder, name))}"


def how_it_ended(process: Process) -> str:
    """The exit code or signal of a child of this process that has ended; it is left to be waited for."""
    try:
        result = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        result = None
    if result is None:
        return "exit code unknown"
    if result.si_code == os.CLD_EXITED:
        return f"exit code {result.si_status}"
    return f"killed by {signal.Signals(result.si_status).name}"


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file; none where it is not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 400 * lines))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:] if lines else []


def log_tail(path: Path) -> str:
    """The last lines of a log, indented, for an error message."""
    lines = tail(path, TAIL_LINES)
    return "\n".join([f"{path} ends:", *(f"  {line}" for line in lines)]) if lines else f"{path} is empty."


def _too_slow(
    waiting: Mapping[str, WorkerProcess], said: Mapping[str, Readiness], timeout_seconds: float, folder: Path
) -> str:
    missing = "; ".join(f"{name} still waits for {said[name]}" for name in waiting)
    tails = "\n".join(log_tail(log_file(folder, name)) for name in waiting)
    return f"not ready after {timeout_seconds:.0f} s: {missing}.\n{tails}"
