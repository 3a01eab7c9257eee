from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from feedmill.settings import StoreSettings, read
from feedmill.spaces import Space
from feedmill.store import Store


@pytest.fixture(params=["motor", "pymongo"])
def store_settings(request: pytest.FixtureRequest, mongo_uri: str, database_name: str) -> StoreSettings:
    return read(StoreSettings, uri=mongo_uri, database=database_name, driver=request.param)


@pytest.fixture
async def store(store_settings: StoreSettings) -> AsyncIterator[Store]:
    opened = Store.open(store_settings, "feedmill-test")
    yield opened
    await opened.close()


@pytest.fixture
def space() -> Space:
    return Space(f"s-{uuid.uuid4().hex[:8]}", "pkg://model", "r1", 3)
