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

ALONE = "paused: handling messages alone that came back too often"


class Gate:
    """Starts closed. Run :meth:`run` as a task; :meth:`trip` closes it at once."""

    def __init__(
        self,
        ready: Callable[[], Awaitable[None]],
        dependencies: tuple[str, ...],
        instruments: Instruments,
        *,
        handles_alone: bool = True,
    ) -> None:
        self._ready = ready
        self._dependencies = dependencies
        self._handles_alone = handles_alone
        """Whether messages that were set apart are this worker's: not a rollout's candidate's."""
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
        pauses = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
        while True:
            if await self._handle_alone(supervisor, pipeline):
                resumed = time.monotonic()
                is_away = await self._open(supervisor)
                if time.monotonic() - resumed >= STABLE_AFTER_SECONDS:
                    pauses.reset()
                if not is_away:
                    continue
            await pipeline.hand_back(Stage.STARTED)
            # A dependency may answer the check and still fail the work (no right to write, say): without a pause the
            # same messages would be taken and handed back as fast as the broker can.
            await asyncio.sleep(pauses.next())
            await self._until_back()
            # Once more: a delivery that arrived while the consumer was being cancelled has failed meanwhile, its trip
            # is cleared with the others, and nothing else would ever settle it.
            await pipeline.hand_back(Stage.STARTED)
            log.info("dependencies are back, taking messages again")

    async def until_idle(self, pipeline: Pipeline[Any, Any, Any]) -> bool:
        """Wait until nothing is in flight; False where a dependency is found away first."""
        idle = asyncio.ensure_future(pipeline.until_idle())
        tripped = asyncio.ensure_future(self.tripped.wait())
        try:
            await asyncio.wait([idle, tripped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            tripped.cancel()
        return not self.tripped.is_set()

    async def _open(self, supervisor: Supervisor) -> bool:
        """Let messages in until there is a reason not to; answer whether that is a dependency that is away."""
        # Shielded: a call to the broker that is cancelled halfway costs the session, and with it what is in hand.
        await asyncio.shield(supervisor.resume())
        self._metrics.paused.set(0)
        while not (is_away := await self._is_away()) and not await self._waiting_alone(supervisor):
            pass
        self._metrics.paused.set(1)
        await asyncio.shield(supervisor.pause("paused: a dependency is away" if is_away else ALONE))
        return is_away

    async def _handle_alone(self, supervisor: Supervisor, pipeline: Pipeline[Any, Any, Any]) -> bool:
        """Handle what was set apart as suspect, each message with no other in hand: where it ends the worker, it alone
        comes back. False where a dependency is found away meanwhile."""
        if not await self._waiting_alone(supervisor):
            return True
        log.info("handling messages alone that came back too often")
        while await self.until_idle(pipeline):
            if not await asyncio.shield(supervisor.take_alone()):
                return True
        return False

    async def _waiting_alone(self, supervisor: Supervisor) -> bool:
        return self._handles_alone and bool(await asyncio.shield(supervisor.count_alone()))

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
