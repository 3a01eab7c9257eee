"""``feedmill serve``: the three workers in one process."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from pathlib import Path

import click

from feedmill import logs
from feedmill.lifecycle import EXIT_FAILED, EXIT_OK, Shutdown, leave
from feedmill.probes import ProbeServer
from feedmill.settings import LogSettings, read
from feedmill.worker import WorkerKind, WorkerSettings
from feedmill_local.errors import StackError
from feedmill_local.own_servers import Start, find_or_start, stop_own
from feedmill_local.ports import LOOPBACK, is_free
from feedmill_local.processes import Process
from feedmill_local.serving import Serving
from feedmill_local.stack import LOCK_TIMEOUT_SECONDS
from feedmill_local.state import Stack, WorkerProcess, forget, load, locked, save, state_folder
from feedmill_local.workers import NAMES, Servers, addresses, fitting_settings

log = logging.getLogger(__name__)


@click.command()
@click.option("--host", default=LOOPBACK, show_default=True, help="Address for /health and the other probes.")
@click.option("--port", type=click.IntRange(1, 65_535), default=8000, show_default=True, help="Their port.")
@click.option("--docker", is_flag=True, help="Run private servers that do not exist yet in containers.")
def command(*, host: str, port: int, docker: bool) -> None:
    """Run the three workers as tasks of one process, until Ctrl-C or SIGTERM. For laptops: `feedmill up` runs them as
    three processes, as in production.

    Servers are found or started as by `feedmill up`. GET /health answers {"status": "healthy", "workers": 3,
    "active_tasks": 3}, or status 503 when a worker has ended or hangs; /livez, /readyz and /metrics are for all workers
    together, and for each one under /toxic, /encode and /hint.
    """
    logs.configure(read(LogSettings), "serve")
    went_well = asyncio.run(_serve(state_folder(), host, port, Start(outlive=False, docker=docker)))
    leave(EXIT_OK if went_well else EXIT_FAILED)


async def _serve(folder: Path, host: str, port: int, start: Start) -> bool:
    """Servers up, workers until a signal, servers down; whether all went well."""
    shutdown = Shutdown()
    shutdown.listen()
    servers, started = await asyncio.to_thread(_prepare, folder, port, start)
    try:
        return await _run_workers(servers, host, port, shutdown)
    finally:
        await asyncio.to_thread(_clean_up, folder, started)


async def _run_workers(servers: Servers, host: str, port: int, shutdown: Shutdown) -> bool:
    os.environ.update({**fitting_settings(), **os.environ, **addresses(servers)})  # before torch is imported
    serving = Serving([_kind(name) for name in NAMES], WorkerSettings())
    probes = ProbeServer(serving.routes(), host, port)
    try:
        probes.start()
    except OSError as error:
        raise StackError(str(error)) from error
    log.info("health: http://%s:%d/health", host, probes.port)
    try:
        return await serving.run(shutdown)
    finally:
        probes.stop()


def _kind(name: str) -> WorkerKind:
    kind: WorkerKind = importlib.import_module(f"feedmill_{name}.worker").KIND
    return kind


def _prepare(folder: Path, port: int, start: Start) -> tuple[Servers, tuple[str, ...]]:
    """Find or start the servers, and note that the stack runs here. Blocks.

    Raises:
        StackError: a stack runs already, the port is taken, or a server can't be had.
    """
    if not is_free(port):
        raise StackError(f"--port {port}: another program listens there; expected a free port")
    with locked(folder, LOCK_TIMEOUT_SECONDS):
        before = load(folder)
        if before is not None and before.runs(folder):
            raise StackError(f"the stack in {folder} runs already: `feedmill down` stops it")
        servers, started = find_or_start(folder, start, log.info)
        save(folder, _as_stack(servers, port))
    return servers, started


def _as_stack(servers: Servers, port: int) -> Stack:
    """This process is all three workers: so the other commands find them."""
    process = Process.find(os.getpid())
    assert process is not None  # noqa: S101 (it is this one)
    url = f"http://{LOOPBACK}:{port}"
    workers = {name: WorkerProcess(process.pid, process.started, f"{url}/{name}") for name in NAMES}
    return Stack(servers.rabbitmq_url, servers.mongo_uri, servers.database, workers, servers.own, process)


def _clean_up(folder: Path, started: tuple[str, ...]) -> None:
    stop_own(folder, started, log.info)
    forget(folder)
