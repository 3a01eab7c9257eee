"""The state of everything at one moment: queues, workers, database; and whether all is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from feedmill.broker.connect import connect
from feedmill.broker.errors import SessionLost, guard
from feedmill.contract import ENCODE, ROUTES, SPACES_COLLECTION, TOXIC, VECTORS_COLLECTION_PREFIX, Route
from feedmill.errors import shorten
from feedmill.settings import BrokerSettings, StoreSettings
from feedmill.store.driver import display_address
from feedmill_local import figures
from feedmill_local.figures import Figures
from feedmill_local.probing import Readiness, is_live, metrics_text, readiness
from feedmill_local.state import WorkerProcess, endpoints, load

SAMPLE_SECONDS = 1.0
DATABASE_TIMEOUT_MS = 4000


@dataclass(frozen=True)
class QueueState:
    """One queue. ``role``: input, result, dead, alone, retry. ``messages`` (those ready): None where it is missing."""

    name: str
    role: str
    messages: int | None
    consumers: int = 0


@dataclass(frozen=True)
class WorkerState:
    """One worker. ``pid`` is None where none was started on this machine: then only its queues are known."""

    name: str
    pid: int | None = None
    alive: bool = False
    live: bool = False
    readiness: Readiness = field(default_factory=lambda: Readiness(False))
    figures: Figures | None = None
    per_second: float | None = None
    queues: tuple[QueueState, ...] = ()

    def queue(self, role: str) -> QueueState | None:
        """Its queue of this role, where the broker could be asked."""
        return next((queue for queue in self.queues if queue.role == role), None)

    def problem(self) -> str | None:
        """What is wrong with it; None while all is well."""
        if self.pid is None:
            queue = self.queue("input")
            return None if queue is None or queue.consumers else f"nobody consumes {queue.name}"
        if not self.alive:
            return f"pid {self.pid} has ended"
        if not self.readiness.ready:
            return f"not ready: {self.readiness}"
        return None if self.live else "not live: see /livez"


@dataclass(frozen=True)
class ServerState:
    """RabbitMQ or the database: its address without credentials, and why it can't be reached, if so."""

    address: str
    problem: str | None = None


@dataclass(frozen=True)
class DataState:
    """What the database holds. ``counts``: documents per collection, as the database estimates them."""

    active_space: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Overview:
    """All of it. ``taken``: when, by the monotonic clock."""

    broker: ServerState
    database: ServerState
    data: DataState
    workers: tuple[WorkerState, ...]
    taken: float

    def problems(self) -> list[str]:
        """What is wrong; empty while all is well."""
        servers = {"RabbitMQ": self.broker, "database": self.database}
        found = [f"{name} {server.address}: {server.problem}" for name, server in servers.items() if server.problem]
        return found + [f"{worker.name}: {problem}" for worker in self.workers if (problem := worker.problem())]

    def since(self, before: Overview) -> Overview:
        """The same, with the messages per second since ``before``."""
        old = {worker.name: worker for worker in before.workers}
        seconds = self.taken - before.taken
        workers = (replace(worker, per_second=_rate(old.get(worker.name), worker, seconds)) for worker in self.workers)
        return replace(self, workers=tuple(workers))

    def as_json(self) -> dict[str, Any]:
        """What ``feedmill status --json`` prints."""
        problems = self.problems()
        return {
            "healthy": not problems,
            "problems": problems,
            "rabbitmq": asdict(self.broker),
            "database": {**asdict(self.database), **asdict(self.data)},
            "workers": {worker.name: _worker_json(worker) for worker in self.workers},
        }


async def take(folder: Path) -> Overview:
    """Ask everybody at once.

    Raises:
        SettingsError: a setting is wrong.
        StackError: the stack's state can't be read.
    """
    broker, store = endpoints(folder)
    stack = load(folder)
    processes: Mapping[str, WorkerProcess] = stack.workers if stack else {}
    (broker_state, queues), (database_state, data), workers = await asyncio.gather(
        _ask_broker(broker), asyncio.to_thread(_ask_database, store), _ask_workers(processes)
    )
    states = tuple(replace(worker, queues=queues.get(worker.name, ())) for worker in workers)
    return Overview(broker_state, database_state, data, states, time.monotonic())


async def take_with_rates(folder: Path) -> Overview:
    """Ask twice, for the messages per second of the moment. Raises as :func:`take`."""
    first = await take(folder)
    if all(worker.figures is None for worker in first.workers):
        return first
    await asyncio.sleep(SAMPLE_SECONDS)
    return (await take(folder)).since(first)


async def _ask_broker(settings: BrokerSettings) -> tuple[ServerState, dict[str, tuple[QueueState, ...]]]:
    address = settings.display_url()
    try:
        connection = await connect(settings, "status")
        try:
            async with guard("asking for queues", settings.operation_timeout_seconds):
                queues = await asyncio.gather(*(_queues(connection, route, settings) for route in ROUTES.values()))
        finally:
            await connection.close()
    except SessionLost as error:
        return ServerState(address, str(error)), {}
    return ServerState(address), dict(zip(ROUTES, queues, strict=True))


async def _queues(connection: AbstractConnection, route: Route, settings: BrokerSettings) -> tuple[QueueState, ...]:
    roles = {route.queue: "input", route.result_queue: "result", route.dead_queue: "dead"}
    roles |= {route.retry_queue(delay): "retry" for delay in settings.retry_delays_seconds}
    found = [await _queue(connection, name, role) for name, role in roles.items()]
    alone = await _queue(connection, route.alone_queue, "alone")
    return (*found, *([alone] if alone.messages is not None else []))  # made when it is needed: most have none


async def _queue(connection: AbstractConnection, name: str, role: str) -> QueueState:
    """Asked on a channel of its own: the broker closes it where the queue is missing."""
    channel = connection.channel(publisher_confirms=False)
    await channel.initialize()
    try:
        answer = await (await channel.get_underlay_channel()).queue_declare(name, passive=True)
    except ChannelNotFoundEntity:
        return QueueState(name, role, None)
    await channel.close()
    return QueueState(name, role, answer.message_count or 0, answer.consumer_count or 0)


def _ask_database(settings: StoreSettings) -> tuple[ServerState, DataState]:
    address = display_address(settings)
    try:
        with MongoClient[dict[str, Any]](
            settings.uri.get_secret_value(),
            appname="feedmill-status",
            serverSelectionTimeoutMS=DATABASE_TIMEOUT_MS,
            connectTimeoutMS=DATABASE_TIMEOUT_MS,
            socketTimeoutMS=DATABASE_TIMEOUT_MS,
        ) as client:
            database = client[settings.database]
            pointer = database[SPACES_COLLECTION].find_one({"_id": "active"})
            space = str(pointer["space"]) if pointer else None
            names = [TOXIC.collection, ENCODE.collection, *([VECTORS_COLLECTION_PREFIX + space] if space else [])]
            counts = {name: database[name].estimated_document_count() for name in names}
    except PyMongoError as error:
        return ServerState(address, f"{type(error).__name__}: {shorten(str(error), 200)}"), DataState()
    return ServerState(address), DataState(space, counts)


async def _ask_workers(processes: Mapping[str, WorkerProcess]) -> list[WorkerState]:
    return await asyncio.gather(*(asyncio.to_thread(_ask_worker, name, processes.get(name)) for name in ROUTES))


def _ask_worker(name: str, process: WorkerProcess | None) -> WorkerState:
    if process is None:
        return WorkerState(name)
    if not process.alive():
        return WorkerState(name, process.pid)
    text = metrics_text(process.probe_url)
    return WorkerState(
        name,
        process.pid,
        alive=True,
        live=is_live(process.probe_url),
        readiness=readiness(process.probe_url),
        figures=figures.parse(text, name) if text is not None else None,
    )


def _rate(before: WorkerState | None, now: WorkerState, seconds: float) -> float | None:
    """Messages answered per second. None where it was started in between, or one of the figures is missing."""
    if before is None or before.figures is None or now.figures is None or before.pid != now.pid or seconds <= 0:
        return None
    return (now.figures.answered - before.figures.answered) / seconds


def _worker_json(worker: WorkerState) -> dict[str, Any]:
    return {
        "pid": worker.pid,
        "alive": worker.alive,
        "live": worker.live,
        "ready": worker.readiness.ready,
        "missing": worker.readiness.missing,
        "per_second": worker.per_second,
        **asdict(worker.figures or Figures()),
        "queues": {
            queue.name: {"role": queue.role, "messages": queue.messages, "consumers": queue.consumers}
            for queue in worker.queues
        },
    }
