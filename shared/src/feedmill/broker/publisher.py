"""Publishing with confirms in flight together, and returned messages noticed."""

from __future__ import annotations

import asyncio

from aio_pika.exceptions import DeliveryError
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from feedmill.broker.errors import Undeliverable, guard

CHECK_ROUTING_KEY = "feedmill.publish-check"


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
        message_id = properties.message_id
        if not message_id:
            raise ValueError("message_id: expected one, returned messages are told apart by it")
        async with guard(f"publish to {routing_key}", self._timeout_seconds):
            # The client library tells returned messages apart by message_id alone: of two with the same id in flight
            # together, a return could be laid to the wrong one, and a lost result be taken for a confirmed one.
            while (other := self._in_flight.get(message_id)) is not None:
                await asyncio.wait([other])
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._in_flight[message_id] = done
            try:
                await self._channel.basic_publish(
                    body, exchange=exchange, routing_key=routing_key, properties=properties, mandatory=True
                )
            except DeliveryError as error:
                raise Undeliverable(f"{exchange or 'default exchange'} -> {routing_key}: {_why(error)}") from error
            finally:
                del self._in_flight[message_id]
                done.set_result(None)

    async def check(self) -> None:
        """Prove that the broker takes and confirms messages: one that it drops at once, as nothing is bound to its key.

        A blocked connection (memory or disk alarm) looks healthy until something is published. Raises SessionLost.
        """
        async with guard("publish check", self._timeout_seconds):
            await self._channel.basic_publish(b"", exchange="", routing_key=CHECK_ROUTING_KEY, mandatory=False)


def _why(error: DeliveryError) -> str:
    return "returned, no queue is bound" if isinstance(error.frame, Basic.Return) else "refused by a queue"
