"""Workplaces for the command ``feedmill``; in the end nothing of them runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from workplace import Workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    """With private servers."""
    place = Workplace(tmp_path)
    yield place
    place.run("down")


@pytest.fixture
def with_own_servers(workplace: Workplace, rabbit_url: str, mongo_uri: str, database_name: str) -> Workplace:
    """With a RabbitMQ and a database that the user already runs."""
    workplace.settings = {"RABBITMQ_URL": rabbit_url, "MONGO_URI": mongo_uri, "DATABASE_NAME": database_name}
    return workplace
