"""Publishing with confirms in flight together, and returned messages noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aio_pika.exceptions import DeliveryError
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from feedmill.broker.errors import Undeliverable, guard

CHECK_ROUTING_KEY = "feedmill.publish-check"


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to publish."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Basic.Properties
    """With a ``message_id``: returned messages are told apart by it."""


class Publisher:
    """Publishes on one channel with confirms. Many publishes may wait for their confirms at the same time."""

    def __init__(self, channel: AbstractChannel, timeout_seconds: float) -> None:
        self._channel = channel
        self._timeout_seconds = timeout_seconds
        self._in_flight: dict[str, asyncio.Future[None]] = {}

    async def publish(self, exchange: str, routing_key: str, body: bytes, properties: Basic.Properties) -> None:
        """Publish one mandatory message; return when the broker has confirmed it.

        Raises:
            Undeliverable: no queue took it, or a queue refused it (at its length limit, say).
            SessionLost: no confirm in time, or the channel is gone.
        """
        (refused,) = await self.publish_all([Letter(exchange, routing_key, body, properties)])
        if refused is not None:
            raise refused

    async def publish_all(self, letters: Sequence[Letter]) -> list[Undeliverable | None]:
        """Publish several at once; answer for each, in order, None where the broker has confirmed it.

        Raises:
            SessionLost: not every answer came in time, or the channel is gone. What was confirmed is not known.
        """
        async with guard("publish", self._timeout_seconds):
            if len(letters) == 1:
                return [await self._confirmed(letters[0])]
            return await asyncio.gather(*map(self._confirmed, letters))

    async def _confirmed(self, letter: Letter) -> Undeliverable | None:
        message_id = letter.properties.message_id
        if not message_id:
            raise ValueError("message_id: expected one, returned messages are told apart by it")
        # The client library tells returned messages apart by message_id alone: of two with the same id in flight
        # together, a return could be laid to the wrong one, and a lost result be taken for a confirmed one.
        while (other := self._in_flight.get(message_id)) is not None:
            await asyncio.wait([other])
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight[message_id] = done
        try:
            # Without waiting until it is written: the confirm says so, and what is on its way is bounded by the
            # prefetch.
            await self._channel.basic_publish(
                letter.body,
                exchange=letter.exchange,
                routing_key=letter.routing_key,
                properties=letter.properties,
                mandatory=True,
                wait=False,  # type: ignore[call-arg]  # the abstract class lacks it
            )
        except DeliveryError as error:
            place = f"{letter.exchange or 'default exchange'} -> {letter.routing_key}"
            refused = Undeliverable(f"{place}: {_why(error)}")
            refused.__cause__ = error
            return refused
        finally:
            del self._in_flight[message_id]
            done.set_result(None)
        return None

    async def check(self) -> None:
        """Prove that the broker takes and confirms messages: one that it drops at once, as nothing is bound to its key.

        A blocked connection (memory or disk alarm) looks healthy until something is published. Raises SessionLost.
        """
        async with guard("publish check", self._timeout_seconds):
            await self._channel.basic_publish(b"", exchange="", routing_key=CHECK_ROUTING_KEY, mandatory=False)


def _why(error: DeliveryError) -> str:
    return "returned, no queue is bound" if isinstance(error.frame, Basic.Return) else "refused by a queue"
