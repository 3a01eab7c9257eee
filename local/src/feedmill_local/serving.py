"""The three workers as tasks of one event loop, with one HTTP server for their probes. For laptops."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from feedmill import __version__
from feedmill.errors import FeedmillError
from feedmill.health import Health
from feedmill.instruments import Instruments
from feedmill.lifecycle import Shutdown
from feedmill.metrics import MetricFamilies, new_registry
from feedmill.pipeline.handler import Handler
from feedmill.probes import Route, json_response, worker_routes
from feedmill.worker import MODEL, Worker, WorkerKind, WorkerSettings
from feedmill_local.workers import settings_of

log = logging.getLogger(__name__)


@dataclass
class Task:
    """A worker, and how it ended: it runs while ``running`` is set."""

    worker: Worker
    running: bool = True
    failed: bool = False

    @property
    def name(self) -> str:
        return self.worker.kind.route.worker

    @property
    def health(self) -> Health:
        return self.worker.health


class Serving:
    """All workers of one process. The probes' thread reads what the event loop writes: single flags only."""

    def __init__(self, kinds: Iterable[WorkerKind], settings: WorkerSettings) -> None:
        families = MetricFamilies(new_registry())
        turn = asyncio.Lock()
        self._registry = families.registry
        self.tasks = [Task(Worker(_in_turn(kind, turn), settings, families)) for kind in kinds]

    async def run(self, shutdown: Shutdown) -> bool:
        """Run until ``shutdown`` is requested, or until all have ended; whether all ended well.

        One that fails is logged and leaves the others alone.
        """
        await asyncio.gather(*(self._run_one(task, shutdown) for task in self.tasks))
        return not any(task.failed for task in self.tasks)

    async def _run_one(self, task: Task, shutdown: Shutdown) -> None:
        try:
            await _run_worker(task.worker, shutdown)
            task.failed = not shutdown.requested.is_set()  # nothing else ends a worker in order
        except FeedmillError as error:
            task.failed = True
            log.error("%s: ended: %s", task.name, error)  # noqa: TRY400 (it says what to do; a traceback adds nothing)
        except Exception:
            task.failed = True
            log.exception("%s: ended by a bug", task.name)
        finally:
            task.running = False
            task.health.set(MODEL, "ended")

    def health(self) -> tuple[dict[str, object], int]:
        """Body and status of ``/health``: healthy while every worker runs and is live."""
        active = sum(task.running and not task.health.liveness() for task in self.tasks)
        healthy = active == len(self.tasks)
        body: dict[str, object] = {
            "status": "healthy" if healthy else "unhealthy",
            "workers": len(self.tasks),
            "active_tasks": active,
        }
        return body, 200 if healthy else 503

    def routes(self) -> list[Route]:
        """``/health``; the usual probes for all workers together; and for each under ``/<worker>``."""
        version = {"feedmill": __version__, "python": platform.python_version()}

        async def health(_: web.Request) -> web.StreamResponse:
            return json_response(*self.health())

        async def livez(_: web.Request) -> web.StreamResponse:
            problems = [f"{task.name}: {problem}" for task in self.tasks for problem in _liveness(task)]
            return json_response({"live": not problems, "problems": problems}, 503 if problems else 200)

        async def readyz(_: web.Request) -> web.StreamResponse:
            missing = _missing({task.name: task.health.readiness() for task in self.tasks})
            return json_response({"ready": not missing, "missing": missing}, 503 if missing else 200)

        found: list[Route] = [("/health", health), ("/livez", livez), ("/readyz", readyz)]
        for task in self.tasks:
            own = worker_routes(task.health, self._registry, {"worker": task.name, **version})
            found += [(f"/{task.name}{path}", handler) for path, handler in own]
            found += [(path, handler) for path, handler in own if path == "/metrics" and task is self.tasks[0]]
        return found


def _in_turn(kind: WorkerKind, turn: asyncio.Lock) -> WorkerKind:
    """The same kind, which opens its handler when it is its turn.

    Importing from transformers in two threads at once fails now and then (its modules are made lazily), and a handler's
    settings are read while it opens: so each can have settings of its own, as in a process of its own.
    """

    @asynccontextmanager
    async def open_in_turn(instruments: Instruments) -> AsyncIterator[Handler[Any, Any, Any]]:
        async with AsyncExitStack() as stack:
            async with turn:
                with _environment(settings_of(kind.route.worker)):
                    handler = await stack.enter_async_context(kind.open_handler(instruments))
            yield handler

    return replace(kind, open_handler=open_in_turn)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def _run_worker(worker: Worker, shutdown: Shutdown) -> None:
    """Run it; where it is still loading its model when the end is asked for, there is nothing to drain."""
    running = asyncio.ensure_future(worker.run(shutdown))
    stopping = asyncio.ensure_future(shutdown.requested.wait())
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        if worker.health.readiness()[MODEL] is not None and not running.done():
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            return
        await running
    finally:
        stopping.cancel()


def _liveness(task: Task) -> list[str]:
    return task.health.liveness() if task.running else ["ended"]


def _missing(readiness: Mapping[str, Mapping[str, str | None]]) -> dict[str, str]:
    return {
        f"{name}.{part}": problem
        for name, parts in readiness.items()
        for part, problem in parts.items()
        if problem is not None
    }
