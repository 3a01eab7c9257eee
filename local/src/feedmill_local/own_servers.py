"""RabbitMQ and the database for the stack: the user's where settings name them, else private ones started here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from feedmill.broker.connect import connect
from feedmill.broker.errors import SessionLost
from feedmill.errors import Outage
from feedmill.logs import redact
from feedmill.settings import BrokerSettings, StoreSettings, read
from feedmill.store.driver import display_address
from feedmill.store.opening import open_store
from feedmill_local.database import Database
from feedmill_local.errors import StackError
from feedmill_local.rabbitmq import RabbitNode
from feedmill_local.workers import Say, Servers

RABBITMQ = "rabbitmq"
DATABASE = "database"
OWN = (RABBITMQ, DATABASE)
TITLES = {RABBITMQ: "RabbitMQ", DATABASE: "database"}
KINDS: dict[str, type[RabbitNode | Database]] = {RABBITMQ: RabbitNode, DATABASE: Database}


@dataclass(frozen=True)
class Start:
    """How private servers are started: see :class:`RabbitNode`."""

    outlive: bool
    docker: bool


@dataclass(frozen=True)
class Found:
    """A server that answers. ``started``: it was started just now, by us."""

    url: str
    own: bool
    started: bool


def users_broker() -> BrokerSettings | None:
    """The user's own RabbitMQ: that of RABBITMQ_URL or RABBITMQ_HOST, if one of them is set."""
    settings = read(BrokerSettings)
    return settings if settings.model_fields_set & {"url", "host"} else None


def users_store() -> StoreSettings | None:
    """The user's own database: that of MONGO_URI, if it is set."""
    settings = read(StoreSettings)
    return settings if "uri" in settings.model_fields_set else None


def find_or_start(folder: Path, start: Start, say: Say) -> tuple[Servers, tuple[str, ...]]:
    """Find or start both servers at once; also answers the names of those that were started just now. Blocks.

    Raises:
        StackError: one can't be reached or started. What was started is stopped again.
        SettingsError: a setting is wrong.
    """
    broker, store = users_broker(), users_store()
    with ThreadPoolExecutor(len(OWN)) as pool:
        jobs = {
            RABBITMQ: pool.submit(_users_broker, broker, say)
            if broker
            else pool.submit(_private, folder, RABBITMQ, start, say),
            DATABASE: pool.submit(_users_store, store, say)
            if store
            else pool.submit(_private, folder, DATABASE, start, say),
        }
    found = {name: job.result() for name, job in jobs.items() if job.exception() is None}
    started = tuple(name for name, server in found.items() if server.started)
    for job in jobs.values():
        if (error := job.exception()) is not None:
            stop_own(folder, started, say)
            raise error
    own = tuple(name for name, server in found.items() if server.own)
    database = (store or read(StoreSettings)).database
    return Servers(found[RABBITMQ].url, found[DATABASE].url, database, own), started


def own_alive(folder: Path, name: str) -> bool:
    """Whether the private server ``name`` runs."""
    server = KINDS[name].find(folder / name)
    return server is not None and server.alive()


def log_file(folder: Path, name: str) -> Path:
    """Where the output of a private server goes."""
    return folder / name / f"{name}.log"


def restart_own(folder: Path, name: str, *, outlive: bool) -> None:
    """Start a private server that has died, at its old address and with its old data. Raises StackError."""
    KINDS[name].start(folder / name, outlive=outlive)


def stop_own(folder: Path, names: Iterable[str], say: Say) -> None:
    """Stop those private servers of ``folder`` that run, in order; what does not end in time is killed."""
    running = [server for name in names if (server := KINDS[name].find(folder / name)) and server.alive()]
    if running:
        say(f"stopping {' and '.join(TITLES[server.folder.name] for server in running)}")
    with ThreadPoolExecutor(len(OWN)) as pool:
        for stopping in [pool.submit(server.stop) for server in running]:
            stopping.result()


def _users_broker(settings: BrokerSettings, say: Say) -> Found:
    """The user's RabbitMQ, once it has taken the login."""
    asyncio.run(_ask_broker(settings))
    say(f"RabbitMQ: yours, {settings.display_url()}")
    return Found(settings.amqp_url(), own=False, started=False)


def _users_store(settings: StoreSettings, say: Say) -> Found:
    """The user's database, once it has taken the login."""
    asyncio.run(_ask_store(settings))
    say(f"database: yours, {display_address(settings)}")
    return Found(settings.uri.get_secret_value(), own=False, started=False)


async def _ask_broker(settings: BrokerSettings) -> None:
    try:
        connection = await connect(settings, "local")
    except SessionLost as error:
        raise StackError(f"RABBITMQ_URL or RABBITMQ_HOST is set, but that RabbitMQ can't be used: {error}") from error
    await connection.close()


async def _ask_store(settings: StoreSettings) -> None:
    async with open_store(settings, "feedmill-local") as store:
        try:
            await store.ping()
        except Outage as error:
            raise StackError(f"MONGO_URI is set, but that database can't be used: {error}") from error


def _private(folder: Path, name: str, start: Start, say: Say) -> Found:
    """The private server of ``folder``, which may run already, or may have run before."""
    kind = KINDS[name]
    server = kind.find(folder / name)
    if server is not None and server.alive():
        return Found(_url(server), own=True, started=False)
    say(f"{TITLES[name]}: starting a private one")
    began = time.monotonic()
    server = kind.start(folder / name, outlive=start.outlive, docker=start.docker)
    say(f"{TITLES[name]}: ready after {time.monotonic() - began:.1f} s, {redact(_url(server)).partition('?')[0]}")
    return Found(_url(server), own=True, started=True)


def _url(server: RabbitNode | Database) -> str:
    return server.url() if isinstance(server, RabbitNode) else server.uri
