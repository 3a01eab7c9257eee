"""Dead letters: looking at them, sending them back to work, deleting them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pamqp.commands import Basic

from feedmill.broker import letters
from feedmill.broker.errors import Undeliverable
from feedmill.contract import Route
from feedmill_local.client import Client
from feedmill_local.queue_walk import Taken, Walk, walk

BATCH_LETTERS = 64
BATCH_BYTES = 16 * 1024 * 1024
"""Letters that are settled together: at most so many, and no more once they have so many bytes."""
MAX_SHOWN_BYTES = 65_536
"""As much of a body is kept for showing."""

Act = Callable[[Taken], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. ``position`` counts from 1, the oldest; ``body`` is cut to MAX_SHOWN_BYTES, ``size`` is not."""

    worker: str
    position: int
    properties: Basic.Properties
    body: bytes
    size: int

    @property
    def message_id(self) -> str:
        return str(self.properties.message_id or "")

    @property
    def reason(self) -> str:
        return self.header(letters.REASON)

    def header(self, name: str) -> str:
        """A header as text; empty where it is not there."""
        return _header(self.properties, name)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant: those that fit all that is given, at most ``limit`` of them, the oldest first."""

    message_id: str | None = None
    reason: str | None = None
    limit: int | None = None

    @property
    def is_all(self) -> bool:
        return self.message_id is None and self.reason is None and self.limit is None

    def fits(self, properties: Basic.Properties) -> bool:
        return self.message_id in {None, str(properties.message_id or "")} and self.reason in {
            None,
            _header(properties, letters.REASON),
        }

    def is_filled(self, number: int) -> bool:
        return self.limit is not None and number >= self.limit


@dataclass(frozen=True, slots=True)
class Settled:
    """How many letters were settled, and why others could not be (they stay where they are)."""

    count: int
    failures: list[str]


async def count(client: Client, route: Route) -> int:
    """How many dead letters wait; 0 where there is no such queue yet. Raises SessionLost."""
    return await client.message_count(route.dead_queue) or 0


async def look(client: Client, route: Route, selection: Selection) -> list[Letter]:
    """The letters that are meant. All that were looked at return to their places. Raises SessionLost."""
    found: list[Letter] = []
    async with walk(client, route.dead_queue) as walking:
        while not selection.is_filled(len(found)) and (taken := await walking.take()):
            if selection.fits(taken.properties):
                shown, size = taken.body[:MAX_SHOWN_BYTES], len(taken.body)
                found.append(Letter(route.worker, taken.position, taken.properties, shown, size))
    return found


async def replay(client: Client, route: Route, selection: Selection) -> Settled:
    """Send the letters that are meant back to the input queue. One is removed here only when it is confirmed there.

    Raises:
        SessionLost: some may be in both queues then, none is lost.
    """

    async def send_back(taken: Taken) -> str | None:
        properties = letters.replay_properties(taken.properties)
        properties.message_id = properties.message_id or str(uuid.uuid4())
        try:
            await client.republish("", route.queue, taken.body, properties)
        except Undeliverable as error:
            return f"{properties.message_id}: {error}"
        return None

    return await _settle(client, route, selection, send_back)


async def purge(client: Client, route: Route, selection: Selection) -> Settled:
    """Delete the letters that are meant, for good. Raises SessionLost."""
    if selection.is_all and await client.message_count(route.dead_queue) is not None:
        channel = await client.channel(confirms=False)
        async with client.call(f"purge {route.dead_queue}"):
            return Settled((await channel.queue_purge(route.dead_queue)).message_count or 0, [])

    async def drop(_: Taken) -> None:
        return None

    return await _settle(client, route, selection, drop)


async def _settle(client: Client, route: Route, selection: Selection, act: Act) -> Settled:
    """Do ``act`` for the letters that are meant, and ack those for which it answers None instead of a failure."""
    done = 0
    failures: list[str] = []
    async with walk(client, route.dead_queue) as walking:
        while batch := await _next_batch(walking, selection, done + len(failures)):
            outcomes = await asyncio.gather(*(act(taken) for taken in batch))
            for taken, failure in zip(batch, outcomes, strict=True):
                if failure is None:
                    await walking.ack(taken)
                    done += 1
                else:
                    failures.append(failure)
    return Settled(done, failures)


async def _next_batch(walking: Walk, selection: Selection, before: int) -> list[Taken]:
    """The next letters that are meant; ``before``: how many there were already."""
    batch: list[Taken] = []
    size = 0
    while len(batch) < BATCH_LETTERS and size < BATCH_BYTES and not selection.is_filled(before + len(batch)):
        taken = await walking.take()
        if taken is None:
            break
        if selection.fits(taken.properties):
            batch.append(taken)
            size += len(taken.body)
    return batch


def _header(properties: Basic.Properties, name: str) -> str:
    value = (properties.headers or {}).get(name)
    return "" if value is None else str(value)
