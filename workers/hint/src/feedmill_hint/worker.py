"""The hint worker, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from feedmill.contract import HINT
from feedmill.instruments import Instruments
from feedmill.settings import BatchSettings, StoreSettings, read
from feedmill.store.opening import open_store
from feedmill.worker import WorkerKind
from feedmill_hint.figures import IndexFigures
from feedmill_hint.follow import Follower
from feedmill_hint.handler import HintHandler
from feedmill_hint.loading import check_engine
from feedmill_hint.settings import FollowSettings, HintSettings


@asynccontextmanager
async def open_handler(instruments: Instruments) -> AsyncIterator[HintHandler]:
    """Open the store and keep the index current for as long as the block lasts. Then write a last snapshot, in what the
    drain has left of its time."""
    follow_settings = read(FollowSettings)
    hint_settings = read(HintSettings)
    check_engine(follow_settings)
    async with open_store(read(StoreSettings), "feedmill-hint") as store:
        follower = Follower(store, follow_settings)
        following = asyncio.create_task(follower.run(), name="follow")
        handler = HintHandler(store, follower, hint_settings)
        figures = IndexFigures(follower, HINT.worker)
        instruments.metrics.registry.register(figures)
        try:
            yield handler
        finally:
            instruments.metrics.registry.unregister(figures)
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            await follower.keep(instruments.shutdown.seconds_left(read(BatchSettings).drain_timeout_seconds))


KIND = WorkerKind(
    HINT, open_handler, dependencies=("database", "index"), groups=(StoreSettings, FollowSettings, HintSettings)
)
