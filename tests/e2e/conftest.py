"""One set of real workers for the tests that only talk to them; servers of its own for those that hurt them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pymongo
import pytest
from pymongo.database import Database as MongoDatabase

from feedmill.contract import ROUTES
from feedmill_local.database import Database
from feedmill_local.rabbitmq import RabbitNode
from support.amqp import Client, connect
from support.workers import Servers, WorkerProcess, worker

WORKERS = ("toxic", "encode", "hint")


@pytest.fixture
def servers(rabbit_url: str, mongo_uri: str, database_name: str) -> Servers:
    """A vhost and a database of this test's own."""
    return Servers(rabbit_url, mongo_uri, database_name)


@pytest.fixture(scope="session")
def shared_servers(rabbit_node: RabbitNode, database_server: Database) -> Servers:
    if not rabbit_node.alive():
        rabbit_node.boot()
    if not database_server.alive():
        database_server.boot()
    return Servers(rabbit_node.add_vhost("e2e"), database_server.uri, f"e2e_{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="session")
def _workers(shared_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, WorkerProcess]]:
    folder = tmp_path_factory.mktemp("workers")
    with ExitStack() as stack:
        # Short delays: a test that waits for a dead letter should not wait for minutes.
        quick = {"FEEDMILL_RETRY_DELAYS_SECONDS": "1,2"}
        yield {name: stack.enter_context(worker(name, shared_servers, folder, **quick)) for name in WORKERS}


@pytest.fixture
def workers(
    _workers: dict[str, WorkerProcess], rabbit_node: RabbitNode, database_server: Database
) -> dict[str, WorkerProcess]:
    """The three workers, ready. Another test may have stopped the servers: they are started again."""
    if not rabbit_node.alive():
        rabbit_node.boot()
    if not database_server.alive():
        database_server.boot()
    for process in _workers.values():
        process.until_ready()
    return _workers


@pytest.fixture
def client(shared_servers: Servers, workers: dict[str, WorkerProcess]) -> Iterator[Client]:
    """A plain producer and consumer beside the shared workers. Nothing is left in any queue from tests before."""
    with connect(shared_servers.rabbit_url) as found:
        for route in ROUTES.values():
            for queue in (route.result_queue, route.dead_queue):
                found.channel.queue_purge(queue)
        yield found


@pytest.fixture
def database(shared_servers: Servers, workers: dict[str, WorkerProcess]) -> Iterator[MongoDatabase]:
    """What the shared workers write."""
    found: pymongo.MongoClient = pymongo.MongoClient(shared_servers.mongo_uri)
    try:
        yield found[shared_servers.database]
    finally:
        found.close()
