"""The toxic worker, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from feedmill.contract import TOXIC
from feedmill.instruments import Instruments
from feedmill.lane import run_blocking
from feedmill.settings import ModelSettings, RoutingSettings, StoreSettings, read
from feedmill.store.opening import connecting, open_store
from feedmill.worker import MODEL, WorkerKind
from feedmill_toxic import DEFAULT_MODEL
from feedmill_toxic.handler import ToxicHandler
from feedmill_toxic.language import identify


@asynccontextmanager
async def open_handler(instruments: Instruments) -> AsyncIterator[ToxicHandler]:
    """Load the classifier and connect to the database meanwhile."""
    from feedmill.models.classifier import LoadedClassifier, load_classifier

    model_settings = read(ModelSettings)
    store_settings = read(StoreSettings)
    is_shadow = read(RoutingSettings).role == "shadow"

    def load() -> LoadedClassifier:
        loaded = load_classifier(model_settings, DEFAULT_MODEL)
        loaded.classifier.warm_up()
        return loaded

    async def load_all() -> LoadedClassifier:
        """The classifier, and what tells languages where it needs that: half a second of unpacking, on a core beside
        the default model, which is known to need it."""
        if not model_settings.model:
            languages = run_blocking(_load_identifier, "load-languages")
            loaded, _ = await asyncio.gather(run_blocking(load, "load-model"), languages)
            return loaded
        loaded = await run_blocking(load, "load-model")
        if loaded.languages:
            await run_blocking(_load_identifier, "load-languages")
        return loaded

    instruments.health.set(MODEL, "loading")
    async with open_store(store_settings, "feedmill-toxic") as store:
        async with connecting(store):
            loaded = await load_all()
        metrics = instruments.metrics
        handler = ToxicHandler(
            loaded, store, model_settings.max_text_chars, metrics.missing.inc, metrics.verdict, stores=not is_shadow
        )
        try:
            yield handler
        finally:
            handler.close()


def _load_identifier() -> None:
    identify("The language identifier is loaded here, not on the first comment.")


KIND = WorkerKind(TOXIC, open_handler, dependencies=("database",), groups=(StoreSettings, ModelSettings))
