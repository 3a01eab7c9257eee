"""The shared fixtures keep tests apart from each other and from the user's own servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pymongo import MongoClient

from feedmill.settings import BrokerSettings, StoreSettings, read

seen: dict[str, set[str]] = {"vhosts": set(), "databases": set()}


@pytest.mark.parametrize("run", [1, 2])
def test_each_test_has_a_vhost_and_a_database_of_its_own(
    run: int, rabbit_url: str, mongo_uri: str, database_name: str
) -> None:
    assert rabbit_url not in seen["vhosts"]
    assert database_name not in seen["databases"]
    seen["vhosts"].add(rabbit_url)
    seen["databases"].add(database_name)
    with MongoClient[dict[str, object]](mongo_uri) as client:
        assert not seen["databases"] & set(client.list_database_names())
        client[database_name].things.insert_one({"_id": 1})


def test_the_users_settings_reach_no_test(tmp_path: Path) -> None:
    assert not [name for name in os.environ if name.startswith(("RABBITMQ_", "MONGO_URI", "DATABASE_NAME"))]
    assert Path.cwd() == tmp_path
    assert read(BrokerSettings).url is None
    assert read(StoreSettings).database == "feedmill"
