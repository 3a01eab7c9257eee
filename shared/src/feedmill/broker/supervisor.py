"""Keeps a worker consuming: opens a session, watches it, and opens the next when it is lost, for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Protocol

from feedmill.backoff import Backoff
from feedmill.broker.errors import SessionLost
from feedmill.broker.session import Delivery, Session
from feedmill.contract import Route
from feedmill.instruments import Instruments
from feedmill.settings import BrokerSettings

log = logging.getLogger(__name__)

FIRST_RECONNECT_SECONDS = 0.2
STABLE_AFTER_SECONDS = 10.0
"""A session that lived this long was a good one: the next is opened without the delays of a failing row."""

PART = "consumer"
"""The part of readiness that this module speaks for."""


class Intake(Protocol):
    """Where deliveries go, and who must know when those of a session are void."""

    def take(self, delivery: Delivery) -> None: ...
    def forget(self, session: Session) -> None: ...


class Supervisor:
    """Run :meth:`run` as a task; it starts paused. Switch consuming with :meth:`resume` and :meth:`pause`."""

    def __init__(self, settings: BrokerSettings, route: Route, instruments: Instruments, intake: Intake) -> None:
        self._settings = settings
        self._route = route
        self._health = instruments.health
        self._metrics = instruments.metrics
        self._intake = intake
        self._backoff = Backoff(FIRST_RECONNECT_SECONDS, settings.reconnect_max_seconds)
        self._session: Session | None = None
        self._paused: str | None = "not started"
        self._is_ending = False
        self._switch = asyncio.Lock()

    async def run(self) -> None:
        """Never returns; cancel it. Errors that are no lost session are bugs, and end it."""
        while True:
            lost = await self._one_session()
            delay = self._backoff.next()
            self._health.set(PART, f"no session with the broker: {lost}")
            log.warning("broker session lost, next try in %.1f s: %s", delay, lost)
            self._metrics.session_lost(lost.cause)
            await asyncio.sleep(delay)

    async def _one_session(self) -> SessionLost:
        """Open a session and use it until it is lost; answer why."""
        try:
            session = await Session.open(self._settings, self._route)
        except SessionLost as error:
            return error
        self._session = session
        opened = time.monotonic()
        try:
            self._metrics.sessions.inc()
            log.info("broker session open: %s", self._settings.display_url())
            await self._apply(session)
            return await self._watch(session)
        except SessionLost as error:
            return error
        finally:
            # Counted from here, not from the first try to connect: a timeout takes long and is no success.
            if time.monotonic() - opened >= STABLE_AFTER_SECONDS:
                self._backoff.reset()
            self._session = None
            self._metrics.consuming.set(0)
            session.fail("closed")
            self._health.set(PART, f"no session with the broker: {session.lost.result()}")
            self._intake.forget(session)
            await session.close()

    async def _watch(self, session: Session) -> SessionLost:
        while True:
            done, _ = await asyncio.wait([session.lost], timeout=self._settings.check_interval_seconds)
            if done:
                return session.lost.result()
            await session.check()
            await self._renew(session)

    async def _renew(self, session: Session) -> None:
        """Register a consumer anew that the broker may have forgotten."""
        async with self._switch:
            if self._paused is None and session.may_be_forgotten:
                log.debug("nothing came for long: consuming on a new channel")
                await session.renew(self._intake.take)

    async def _apply(self, session: Session) -> None:
        """Make the session consume or not, as wanted, and say so."""
        async with self._switch:
            wanted = self._paused is None
            if wanted and not session.is_consuming:
                await session.consume(self._intake.take)
            elif not wanted and session.is_consuming:
                await session.stop_consuming()
            self._metrics.consuming.set(session.is_consuming)
            self._health.set(PART, self._paused)

    async def pause(self, why: str) -> None:
        """Stop consuming. When this returns no further message arrives. ``why`` is shown by /readyz."""
        self._paused = why
        self._health.set(PART, why)
        await self._reapply()

    async def end(self, why: str) -> None:
        """:meth:`pause` for good: a resume that is on its way, or comes later, changes nothing."""
        self._is_ending = True
        await self.pause(why)

    async def resume(self) -> None:
        """Consume again, on this session or, if it is lost meanwhile, on the next."""
        if self._is_ending:
            return
        self._paused = None
        if self._session is None:
            self._health.set(PART, "no session with the broker yet")
        await self._reapply()

    async def count_alone(self) -> int:
        """Messages that wait to be handled alone; 0 where there is no session to ask on."""
        if self._session is not None:
            with suppress(SessionLost):
                return await self._session.count_alone()
        return 0

    async def take_alone(self) -> bool:
        """Take one of them in; False where there is none, or no session."""
        if self._session is not None:
            with suppress(SessionLost):
                return await self._session.take_alone(self._intake.take)
        return False

    async def _reapply(self) -> None:
        if self._session is not None:
            with suppress(SessionLost):  # noted by the session: run() opens the next one, as wanted by then
                await self._apply(self._session)
