"""Servers for the tests: one RabbitMQ node and one database a run, one vhost and one database name a test.

They are private to this run and started on first use. Where one can't be had (no RabbitMQ and no apt, say), the tests
that need it are skipped on a laptop and fail in CI.
"""

from __future__ import annotations

import itertools
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from pymongo import MongoClient

from feedmill_local.database import Database
from feedmill_local.errors import NotInstalledError
from feedmill_local.rabbitmq import RabbitNode
from support.ci import in_ci

# A test never touches a broker or a database of the user's. The cache only spares downloading RabbitMQ once more.
USERS_OWN = ("RABBITMQ_", "FEEDMILL_", "MONGO_URI", "DATABASE_NAME")
KEPT = {"FEEDMILL_CACHE"}
# Created at boot, where they cost next to nothing; a vhost added later costs a second.
VHOSTS_AT_ONCE = 64

Server = TypeVar("Server", RabbitNode, Database)


def pytest_configure() -> None:
    for name in list(os.environ):
        if name.startswith(USERS_OWN) and name not in KEPT:
            del os.environ[name]


def start_or_skip(start: Callable[[], Server]) -> Server:
    """Start a server; without its program, skip the test, or fail it in CI: CI can't be green by skipping."""
    try:
        return start()
    except NotInstalledError as error:
        if in_ci():
            pytest.fail(f"needed in CI: {error}", pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _no_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings read ``.env`` of the working folder; a test's is empty."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A worker or a command that runs in the test's process configures logging; the next test starts without it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def rabbit_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """The run's RabbitMQ node. A test may stop or kill it: the next one that asks for ``rabbit_url`` finds it up."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    node = start_or_skip(lambda: RabbitNode.start(folder, vhosts=[f"t{i}" for i in range(VHOSTS_AT_ONCE)]))
    yield node
    node.stop()


@pytest.fixture(scope="session")
def _vhost_numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def rabbit_url(rabbit_node: RabbitNode, _vhost_numbers: Iterator[int]) -> str:
    """The URL of an empty vhost that no other test uses."""
    if not rabbit_node.alive():
        rabbit_node.boot()
    number = next(_vhost_numbers)
    if number >= VHOSTS_AT_ONCE and number % VHOSTS_AT_ONCE == 0:
        rabbit_node.add_vhosts([f"t{i}" for i in range(number, number + VHOSTS_AT_ONCE)])
    return rabbit_node.url(f"t{number}")


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The run's database. A test may stop or kill it: the next one that asks for ``mongo_uri`` finds it up."""
    folder = tmp_path_factory.mktemp("database")
    database = start_or_skip(lambda: Database.start(folder))
    yield database
    database.stop()


@pytest.fixture
def mongo_uri(database_server: Database) -> str:
    """The URI of the run's database server."""
    if not database_server.alive():
        database_server.boot()
    return database_server.uri


@pytest.fixture
def database_name(database_server: Database) -> Iterator[str]:
    """The name of a database that no other test uses; it is dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield name
    if database_server.alive():
        with MongoClient[dict[str, object]](database_server.uri) as client:
            client.drop_database(name)
