"""The encode worker, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from feedmill.contract import ENCODE
from feedmill.instruments import Instruments
from feedmill.lane import run_blocking
from feedmill.settings import ModelSettings, RoutingSettings, StoreSettings, read
from feedmill.store.opening import connecting, open_store
from feedmill.worker import MODEL, WorkerKind
from feedmill_encode import DEFAULT_MODEL
from feedmill_encode.backfill.progress import show_progress
from feedmill_encode.handler import EncodeHandler
from feedmill_encode.settings import UpkeepSettings
from feedmill_encode.upkeep.task import end, keep_up


@asynccontextmanager
async def open_handler(instruments: Instruments) -> AsyncIterator[EncodeHandler]:
    """Load the encoder and connect to the database meanwhile."""
    from feedmill.models.encoder import SentenceEncoder, load_encoder

    model_settings = read(ModelSettings)
    store_settings = read(StoreSettings)
    upkeep_settings = read(UpkeepSettings)
    is_shadow = read(RoutingSettings).role == "shadow"

    def load() -> SentenceEncoder:
        encoder = load_encoder(model_settings, DEFAULT_MODEL)
        encoder.warm_up()
        return encoder

    instruments.health.set(MODEL, "loading")
    async with open_store(store_settings, "feedmill-encode") as store:
        async with connecting(store):
            encoder = await run_blocking(load, "load-model")
        missing = instruments.metrics.missing.inc
        handler = EncodeHandler(encoder, store, model_settings.max_text_chars, missing, is_shadow=is_shadow)
        tasks = [asyncio.create_task(keep_up(store, upkeep_settings), name="upkeep")]
        if is_shadow:
            showing = show_progress(store, handler.space, instruments.metrics)
            tasks.append(asyncio.create_task(showing, name="backfill-progress"))
        try:
            yield handler
        finally:
            for task in tasks:
                await end(task)
            handler.close()


KIND = WorkerKind(
    ENCODE, open_handler, dependencies=("database",), groups=(StoreSettings, ModelSettings, UpkeepSettings)
)
