"""A private database keeps acknowledged writes, ends on time, and leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from feedmill_local.database import Database
from feedmill_local.errors import StackError
from feedmill_local.ports import is_free
from feedmill_local.processes import wait_until

Client = MongoClient[dict[str, Any]]


@pytest.fixture
def client(mongo_uri: str) -> Iterator[Client]:
    with Client(mongo_uri) as found:
        yield found


def test_acknowledged_writes_survive_a_kill(database_server: Database, mongo_uri: str, database_name: str) -> None:
    acknowledged: list[int] = []

    def write() -> None:
        with Client(mongo_uri) as client:
            try:
                for number in range(1_000_000):
                    client[database_name].kept.insert_one({"_id": number})
                    acknowledged.append(number)
            except PyMongoError:
                return  # the kill

    writer = threading.Thread(target=write)
    writer.start()
    assert wait_until(lambda: len(acknowledged) >= 100, 30)
    database_server.kill()
    writer.join(30)
    assert not writer.is_alive()
    database_server.boot()
    with Client(mongo_uri) as client:
        stored = {document["_id"] for document in client[database_name].kept.find()}
    assert stored >= set(acknowledged)


def test_stop_ends_it_with_clients_attached_and_the_address_stays(
    database_server: Database, mongo_uri: str, database_name: str, client: Client
) -> None:
    client[database_name].kept.insert_one({"_id": 1})
    database_server.stop()
    assert not database_server.alive()
    assert is_free(database_server.config.port)
    database_server.stop()
    database_server.boot()
    assert database_server.uri == mongo_uri
    assert client[database_name].kept.find_one() == {"_id": 1}


def test_change_streams_work(client: Client, database_name: str) -> None:
    collection = client[database_name].posts
    with collection.watch(max_await_time_ms=200) as stream:
        collection.insert_one({"_id": "a"})
        changes: list[Any] = []
        assert wait_until(lambda: bool(changes.extend(filter(None, [stream.try_next()])) or changes), 10)
    assert changes[0]["documentKey"] == {"_id": "a"}


def test_a_second_start_in_the_folder_is_refused_and_harmless(database_server: Database, client: Client) -> None:
    with pytest.raises(StackError, match="already runs"):
        Database.start(database_server.folder)
    assert client.admin.command("ping")["ok"]


def test_each_start_has_an_address_of_its_own(database_server: Database, tmp_path: Path) -> None:
    database = Database.start(tmp_path / "other")
    try:
        assert database.uri != database_server.uri
    finally:
        database.stop()
    assert is_free(database.config.port)
