"""How far the backfill of a candidate's space is, as the candidate's metrics: a rollout reads them there."""

from __future__ import annotations

import asyncio
import logging

from feedmill.errors import Outage
from feedmill.metrics import Metrics
from feedmill.spaces import Space, backfill_progress
from feedmill.store import Store

_LOOK_SECONDS = 2.0

_log = logging.getLogger(__name__)


async def show_progress(store: Store, space: Space, metrics: Metrics) -> None:
    """Never returns; cancel it. Whatever processes do the work, their common progress is in the database."""
    while True:
        try:
            progress = await backfill_progress(store, space)
            if progress is not None:
                metrics.backfill(*progress)
        except Outage as error:
            _log.debug("the backfill's progress has to wait: %s", error)
        await asyncio.sleep(_LOOK_SECONDS)
