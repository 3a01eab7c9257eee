"""The encode worker's upkeep, beside its messages."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from contextlib import suppress

from feedmill.errors import ModelError, Outage
from feedmill.store import Store
from feedmill_encode.backfill.filling import Pace
from feedmill_encode.settings import UpkeepSettings
from feedmill_encode.upkeep.copying import Copier
from feedmill_encode.upkeep.pruning import prune_when_due

PRUNE_RATE = 1000.0

_log = logging.getLogger(__name__)


async def keep_up(store: Store, settings: UpkeepSettings) -> None:
    """Never returns; cancel it. Failures are logged and tried again."""
    stop = asyncio.Event()
    copier = Copier(store, owner_name(), Pace(settings.upkeep_copy_rate or None), stop)
    while True:
        await asyncio.sleep(settings.upkeep_look_seconds)
        try:
            if settings.upkeep_copy_rate:
                await copier.run(wait=False)
            if settings.upkeep_prune_seconds:
                every, grace = settings.upkeep_prune_seconds, settings.upkeep_grace_seconds
                await prune_when_due(store, every, grace, Pace(PRUNE_RATE), stop)
        except (Outage, ModelError) as error:
            _log.warning("upkeep has to wait: %s", error)
        except Exception:  # messages go on; what there is to see to stays
            _log.exception("upkeep failed")


async def end(task: asyncio.Task[None]) -> None:
    """Cancel and wait: what it had in hand is taken over by the next worker."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def owner_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
