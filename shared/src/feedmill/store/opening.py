"""A store for as long as a block lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from feedmill.errors import Outage
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


@asynccontextmanager
async def connecting(store: Store) -> AsyncIterator[None]:
    """Connect to the database while the block runs: a model loads. A failure is for a later call to tell."""
    task = asyncio.create_task(_reach(store), name="connect-database")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _reach(store: Store) -> None:
    with suppress(Outage):
        await store.ping()
