"""The gate in front of the intake: closed while a dependency is away, so that no message burns its retries on it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from feedmill.backoff import Backoff
from feedmill.broker.supervisor import Supervisor
from feedmill.errors import Outage
from feedmill.health import STARTING
from feedmill.instruments import Instruments
from feedmill.pipeline.item import Stage
from feedmill.pipeline.pipeline import Pipeline

log = logging.getLogger(__name__)

CHECK_INTERVAL_SECONDS = 5.0
CHECK_TIMEOUT_SECONDS = 15.0
"""Above every timeout of a single check: for one that hangs all the same."""
FIRST_RETRY_SECONDS = 0.25
MAX_RETRY_SECONDS = 5.0
STABLE_AFTER_SECONDS = 10.0
"""An intake that stayed open this long was rightly opened: the next pause is a short one again."""


class Gate:
    """Starts closed. Run :meth:`run` as a task; :meth:`trip` closes it at once."""

    def __init__(
        self, ready: Callable[[], Awaitable[None]], dependencies: tuple[str, ...], instruments: Instruments
    ) -> None:
        self._ready = ready
        self._dependencies = dependencies
        self._health = instruments.health
        self._metrics = instruments.metrics
        self.tripped = asyncio.Event()

    def trip(self, outage: Outage) -> None:
        """A step found a dependency away."""
        self._note(outage)
        self.tripped.set()

    async def run(self, supervisor: Supervisor, pipeline: Pipeline[Any, Any, Any]) -> None:
        """Never returns; cancel it."""
        self._metrics.paused.set(1)
        await self._until_back()
        await asyncio.shield(supervisor.resume())
        self._metrics.paused.set(0)
        resumed = time.monotonic()
        pauses = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
        while True:
            if not await self._is_away():
                continue
            if time.monotonic() - resumed >= STABLE_AFTER_SECONDS:
                pauses.reset()
            self._metrics.paused.set(1)
            # Shielded: a call to the broker that is cancelled halfway costs the session, and with it what is in hand.
            await asyncio.shield(supervisor.pause("paused: a dependency is away"))
            await pipeline.hand_back(Stage.STARTED)
            # A dependency may answer the check and still fail the work (no right to write, say): without a pause the
            # same messages would be taken and handed back as fast as the broker can.
            await asyncio.sleep(pauses.next())
            await self._until_back()
            # Once more: a delivery that arrived while the consumer was being cancelled has failed meanwhile, its trip
            # is cleared with the others, and nothing else would ever settle it.
            await pipeline.hand_back(Stage.STARTED)
            log.info("dependencies are back, taking messages again")
            await asyncio.shield(supervisor.resume())
            resumed = time.monotonic()
            self._metrics.paused.set(0)

    async def _is_away(self) -> bool:
        """Wait for a trip or for the next check; answer whether a dependency is away."""
        try:
            async with asyncio.timeout(CHECK_INTERVAL_SECONDS):
                await self.tripped.wait()
        except TimeoutError:
            outage = await self._check()
            if outage is not None:
                self._note(outage)
            return outage is not None
        return True

    async def _until_back(self) -> None:
        backoff = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
        while (outage := await self._check()) is not None:
            self._note(outage)
            await asyncio.sleep(backoff.next())
        self.tripped.clear()

    async def _check(self) -> Outage | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                await self._ready()
        except Outage as outage:
            return outage
        except TimeoutError:
            return Outage(self._dependencies[0], f"no answer within {CHECK_TIMEOUT_SECONDS:.0f} s")
        for dependency in self._dependencies:
            self._health.set(dependency, None)
        return None

    def _note(self, outage: Outage) -> None:
        known = self._health.readiness().get(outage.dependency)
        if known in (None, STARTING):
            log.warning("dependency away, no messages are taken: %s", outage)
            self._metrics.outage(outage.dependency)
        self._health.set(outage.dependency, outage.detail)
