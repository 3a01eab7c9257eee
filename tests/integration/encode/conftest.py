from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from feedmill.settings import StoreSettings, read
from feedmill.store import Store


@pytest.fixture
async def store(mongo_uri: str, database_name: str) -> AsyncIterator[Store]:
    opened = Store.open(read(StoreSettings, uri=mongo_uri, database=database_name), "feedmill-test")
    yield opened
    await opened.close()
