"""The stack on this machine: brought up, repaired, taken down. All functions block."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from feedmill_local import own_servers, state
from feedmill_local.errors import StackError
from feedmill_local.own_servers import Start, find_or_start, stop_own
from feedmill_local.processes import Process, wait_until
from feedmill_local.state import Stack, WorkerProcess, load, locked
from feedmill_local.workers import LOGS, NAMES, Interrupted, Say, Servers, start_worker, stop_workers, wait_ready

__all__ = ["Interrupted", "Options", "Say", "bring_up", "take_down"]

LOCK_TIMEOUT_SECONDS = 60.0
SUPERVISOR_GRACE_SECONDS = 75.0  # its workers drain, then its servers stop
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Options:
    """How to bring the stack up.

    Attributes:
        outlive: it goes on when this process ends; otherwise it ends with it, however that happens.
        docker: private servers that do not exist yet run in containers.
        timeout_seconds: how long the workers may take to become ready.
    """

    outlive: bool = False
    docker: bool = False
    timeout_seconds: float = 180.0


def bring_up(folder: Path, options: Options, say: Say, stop: threading.Event | None = None) -> Stack:
    """Find or start the servers, start the workers, and return when all are ready.

    A stack that runs already is used as it is; one that has lost some of its processes gets them back.

    Args:
        say: takes lines that say what is awaited.
        stop: give up as soon as it is set, from a signal handler for instance.

    Raises:
        StackError: it can't be brought up; the text says why. What was started is stopped again.
        Interrupted: ``stop`` was set; what was started is stopped again.
        SettingsError: a setting is wrong.
    """
    stop = stop or threading.Event()
    with locked(folder, LOCK_TIMEOUT_SECONDS):
        before = load(folder)
        if before is not None and before.is_one_process() and before.runs(folder):
            raise StackError(f"`feedmill serve` runs the workers in {folder}: `feedmill down` stops it")
        if before is not None and before.is_whole(folder):
            say(f"the stack in {folder} runs already")
            wait_ready(before.workers, folder, options.timeout_seconds, say, stop)
            return before
        if before is not None and before.supervisor is not None and before.supervisor.alive():
            raise StackError(
                f"the stack in {folder} is being brought back by the feedmill in the foreground "
                f"(pid {before.supervisor.pid}): wait for it, or `feedmill down`"
            )
        return _start(folder, options, say, stop, before)


def take_down(folder: Path, say: Say, *, purge: bool = False) -> bool:
    """Stop the workers, in order, then the private servers; never the user's. False where nothing ran.

    Args:
        purge: remove the data and the logs too.

    Raises:
        StackError: another command starts or stops the stack, or a process can't be ended.
    """
    if not folder.exists():
        return False
    ran = _stop_supervisor(folder, say)
    with locked(folder, LOCK_TIMEOUT_SECONDS):
        stack = load(folder)
        workers = {name: worker for name, worker in (stack.workers if stack else {}).items() if worker.alive()}
        servers = [name for name in own_servers.OWN if own_servers.own_alive(folder, name)]
        _stop(folder, workers, servers, say)
        state.forget(folder)
        if purge:
            _purge(folder)
    return ran or bool(workers) or bool(servers)


def _start(folder: Path, options: Options, say: Say, stop: threading.Event, before: Stack | None) -> Stack:
    """Start what is missing. What this has started is stopped again where it fails."""
    with ExitStack() as undo:
        undo.callback(_put_back, folder, before)
        servers, started = find_or_start(folder, Start(options.outlive, options.docker), say)
        fresh: dict[str, WorkerProcess] = {}
        undo.callback(_stop, folder, fresh, started, say)
        if stop.is_set():
            raise Interrupted("interrupted while the servers were starting")
        stack = Stack(
            rabbitmq_url=servers.rabbitmq_url,
            mongo_uri=servers.mongo_uri,
            database=servers.database,
            workers=_still_useful(before, servers),
            own_servers=servers.own,
            supervisor=None if options.outlive else Process.find(os.getpid()),
        )
        for name in NAMES:
            if name not in stack.workers:
                fresh[name] = start_worker(name, servers, folder, outlive=options.outlive)
                say(f"{name}: started, pid {fresh[name].pid}")
            state.save(folder, replace(stack, workers={**stack.workers, **fresh}))
        stack = replace(stack, workers={name: {**stack.workers, **fresh}[name] for name in NAMES})
        wait_ready(stack.workers, folder, options.timeout_seconds, say, stop)
        state.save(folder, stack)
        undo.pop_all()
        return stack


def _still_useful(before: Stack | None, servers: Servers) -> dict[str, WorkerProcess]:
    """The workers of a half-dead stack that run and use the right servers; others that run are stopped."""
    if before is None:
        return {}
    running = {name: worker for name, worker in before.workers.items() if worker.alive()}
    if (before.rabbitmq_url, before.mongo_uri, before.database) == _addresses(servers):
        return running
    stop_workers(running)
    return {}


def _addresses(servers: Servers) -> tuple[str, str, str]:
    return servers.rabbitmq_url, servers.mongo_uri, servers.database


def _put_back(folder: Path, before: Stack | None) -> None:
    """Leave the state as it was, or none where nothing of it runs any more."""
    if before is not None and before.runs(folder):
        state.save(folder, before)
    else:
        state.forget(folder)


def _stop(folder: Path, workers: Mapping[str, WorkerProcess], servers: Sequence[str], say: Say) -> None:
    if workers:
        say(f"stopping {', '.join(workers)}")
        stop_workers(workers)
    stop_own(folder, servers, say)


def _stop_supervisor(folder: Path, say: Say) -> bool:
    """Let the ``feedmill`` that runs the stack in the foreground, if one does, take it down itself."""
    stack = load(folder)
    supervisor = stack.supervisor if stack else None
    if supervisor is None or supervisor.pid == os.getpid() or not supervisor.alive():
        return False
    say(f"stopping the feedmill in the foreground (pid {supervisor.pid})")
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(supervisor.pid, number)
        if wait_until(lambda: not supervisor.alive(), SUPERVISOR_GRACE_SECONDS, POLL_SECONDS):
            return True
    raise StackError(f"process {supervisor.pid} can't be ended, not even by SIGKILL")


def _purge(folder: Path) -> None:
    """Remove what the stack keeps in its folder. The lock stays: someone may be waiting for it."""
    for name in (*own_servers.OWN, LOGS):
        shutil.rmtree(folder / name, ignore_errors=True)
