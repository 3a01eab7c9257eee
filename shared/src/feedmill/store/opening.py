"""A store for as long as a block lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from feedmill.settings import StoreSettings
from feedmill.store.client import Store


@asynccontextmanager
async def open_store(settings: StoreSettings, app_name: str) -> AsyncIterator[Store]:
    """Open a store and close it at the end. Does no I/O: it connects on first use."""
    store = Store.open(settings, app_name)
    try:
        yield store
    finally:
        await store.close()
