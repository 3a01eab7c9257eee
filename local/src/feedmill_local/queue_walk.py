"""Looking through a queue: messages are taken without acknowledging them, and given back in the end.

Until then other consumers don't see them. What the walk does not settle returns to its old place. It ends after as many
messages as there were at its beginning: one that is sent back and returns is not met twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from feedmill_local.client import Client

MAX_WHOLE_WALK = 10_000
"""In a longer quorum queue, the messages that a walk has met go behind the others; to keep them would take minutes."""

RETURN_POLLS = 100
RETURN_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was taken. ``position`` counts from 1, the oldest."""

    tag: int
    position: int
    properties: Basic.Properties
    body: bytes


class Walk:
    """Get one with :func:`walk`."""

    def __init__(self, client: Client, channel: AbstractChannel, queue: str, total: int) -> None:
        self._client = client
        self._channel = channel
        self._queue = queue
        self._total = total
        self._taken = 0
        self._acked = 0

    async def take(self) -> Taken | None:
        """The next message, oldest first; None at the end. Raises SessionLost."""
        if self._taken >= self._total:
            return None
        async with self._client.call(f"get from {self._queue}"):
            message = await self._channel.basic_get(self._queue)
        if message.delivery_tag is None:  # empty: others take messages too
            return None
        self._taken += 1
        return Taken(message.delivery_tag, self._taken, message.header.properties, bytes(message.body))

    async def ack(self, taken: Taken) -> None:
        """Remove a message for good. Raises SessionLost."""
        async with self._client.call("ack"):
            await self._channel.basic_ack(taken.tag, wait=False)
        self._acked += 1

    async def give_back(self) -> None:
        """Return all that was taken and not acked, to its old places. Raises SessionLost: it returns by itself then."""
        if self._taken == 0:
            return
        # A classic queue puts each where it was; a quorum queue puts what returns behind what was never taken.
        # With the rest taken as well, all return in their old order.
        while self._total <= MAX_WHOLE_WALK and await self.take():
            pass
        async with self._client.call("give back"):
            # Tag 0 with multiple: all that is outstanding on the channel, and no error where nothing is.
            await self._channel.basic_nack(0, multiple=True, requeue=True, wait=False)
            await self._channel.basic_qos(prefetch_count=0)  # answered once the broker has come that far
        await self._returned(self._taken - self._acked)

    async def _returned(self, number: int) -> None:
        """Wait until the queue has them again: a quorum queue answers before it has. Others may take some meanwhile."""
        for _ in range(RETURN_POLLS):
            if (await self._client.message_count(self._queue) or 0) >= number:
                return
            await asyncio.sleep(RETURN_POLL_SECONDS)


@asynccontextmanager
async def walk(client: Client, queue: str) -> AsyncIterator[Walk]:
    """A walk through ``queue``, which may be missing: then it has no messages. Raises SessionLost."""
    total = await client.message_count(queue) or 0
    walking = Walk(client, await client.channel(confirms=False), queue, total)
    try:
        yield walking
    finally:
        await walking.give_back()
