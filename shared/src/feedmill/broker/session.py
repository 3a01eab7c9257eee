"""One generation of contact with the broker: two connections, a consumer, a publisher.

Two connections, because a broker under a memory or disk alarm blocks connections that publish, and a blocked one can't
be consumed from either. Whatever breaks, the whole session is over: one thing to notice, one thing to heal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aio_pika.abc
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from feedmill.broker import topology
from feedmill.broker.acks import AckLedger
from feedmill.broker.connect import close, connect, open_channel, server_version
from feedmill.broker.errors import SessionLost, Undeliverable, describe, guard
from feedmill.broker.publisher import Letter, Publisher
from feedmill.contract import Route
from feedmill.settings import BrokerSettings

log = logging.getLogger(__name__)

TELLS_OF_REMADE_QUEUES = 4
"""RabbitMQ's first major version that cancels the consumer of a quorum queue that is deleted and made again within
moments. Before, it lists the consumer as the new queue's, holds messages for it, and sends none."""
RENEW_IDLE_SECONDS = 60.0
"""With such a broker, a consumer that got nothing for so long is registered anew."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A message as it came, and the session that it must be settled on."""

    session: Session
    tag: int
    body: bytes
    properties: Basic.Properties
    exchange: str
    routing_key: str
    redelivered: bool
    is_alone: bool = False
    """Taken from the queue for messages that are handled with no other in hand."""


class Session:
    """Open one with :meth:`open`. ``lost`` resolves to the cause when it is over."""

    def __init__(self, settings: BrokerSettings, route: Route) -> None:
        self._settings = settings
        self._route = route
        self.lost: asyncio.Future[SessionLost] = asyncio.get_running_loop().create_future()
        self._connections: list[AbstractConnection] = []
        self._channels: dict[str, aio_pika.abc.AbstractChannel] = {}
        self._consume_channel: AbstractChannel
        self._consumer_tag: str | None = None
        self._may_forget = False
        self._last_delivery = time.monotonic()
        self._ledger = AckLedger()
        # What the ledger decides is sent before it decides again: an acknowledgement that overtook a message's return
        # could cover it, and one that came twice would close the channel.
        self._settling = asyncio.Lock()
        self._repair = asyncio.Lock()
        self._repairs = 0
        self.publisher: Publisher

    @classmethod
    async def open(cls, settings: BrokerSettings, route: Route) -> Session:
        """Connect, declare what is missing, and prove that publishing works. Nothing is consumed yet.

        Raises SessionLost; nothing is left open then.
        """
        session = cls(settings, route)
        try:
            await session._open()
        except BaseException:
            await session.close()
            raise
        return session

    async def _open(self) -> None:
        consuming = await self._connect("consume")
        publishing = await self._connect("publish")
        self._may_forget = server_version(consuming) < (TELLS_OF_REMADE_QUEUES,)
        await topology.declare(consuming, self._route, self._settings)
        self._consume_channel = await self._channel(consuming, "consume")
        self.publisher = Publisher(await self._channel(publishing, "publish"), self._settings.operation_timeout_seconds)
        # Twice: a broker under a memory or disk alarm still confirms the first message of a new connection, and blocks
        # it then. A session that took this for health would be ready, for seconds, again and again.
        await self.publisher.check()
        await self.publisher.check()

    async def _connect(self, purpose: str) -> AbstractConnection:
        connection = await connect(self._settings, f"{self._route.worker}-{purpose}")
        self._connections.append(connection)
        connection.close_callbacks.add(lambda _, error: self.fail("connection_closed", describe(error)))
        return connection

    async def _channel(self, connection: AbstractConnection, purpose: str) -> AbstractChannel:
        async with guard("open channel", self._settings.operation_timeout_seconds):
            channel = await open_channel(connection, confirms=purpose == "publish")
            channel.close_callbacks.add(lambda _, error: self.fail("channel_closed", describe(error)))
            underlay = await channel.get_underlay_channel()
        self._channels[purpose] = channel
        return underlay

    @property
    def is_lost(self) -> bool:
        return self.lost.done()

    @property
    def is_consuming(self) -> bool:
        return self._consumer_tag is not None and not self.is_lost

    def fail(self, cause: str, detail: str = "") -> None:
        """The session is over. Only the first cause counts."""
        if not self.lost.done():
            self.lost.set_result(SessionLost(cause, detail))

    async def consume(self, on_delivery: Callable[[Delivery], None]) -> None:
        """Register the consumer. ``on_delivery`` must not block. Raises SessionLost."""

        async def deliver(message: DeliveredMessage) -> None:
            try:
                on_delivery(self._delivery(message))
            except Exception as error:
                # The client library would drop it with a line in its log, and the message would wait for ever.
                log.exception("taking a delivery failed: a bug")
                self.fail("bug", describe(error))

        channel = self._consume_channel
        # Where the client library tells of a cancel by the broker, hear it at once; check() finds it in any case.
        if hasattr(channel, "on_consumer_cancel_callbacks"):
            channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
        async with self._guard(f"consume from {self._route.consumed}"):
            await channel.basic_qos(prefetch_count=self._settings.prefetch)
            answer = await channel.basic_consume(self._route.consumed, deliver)
        self._consumer_tag = answer.consumer_tag
        self._last_delivery = time.monotonic()

    @property
    def may_be_forgotten(self) -> bool:
        """Whether the broker may be holding messages for the consumer without sending them: nothing came for long, and
        nothing that came is unsettled."""
        idle_seconds = time.monotonic() - self._last_delivery
        return self._may_forget and self.is_consuming and not self._ledger and idle_seconds >= RENEW_IDLE_SECONDS

    async def renew(self, on_delivery: Callable[[Delivery], None]) -> None:
        """Consume on a new channel; closing the old one returns to its queue what was held. Raises SessionLost."""
        await self.stop_consuming()
        async with self._settling:  # tags are of one channel
            if not self._ledger:  # something may have come at last
                await self._replace_channel()
        await self.consume(on_delivery)

    async def _replace_channel(self) -> None:
        retired = self._channels["consume"]
        retired.close_callbacks.clear()
        self._consume_channel = await self._channel(self._connections[0], "consume")
        self._ledger = AckLedger()
        async with self._guard("close channel"):
            await retired.close()

    async def count_alone(self) -> int:
        """Messages that wait to be handled alone. Raises SessionLost."""
        async with self._noting("count"):
            timeout = self._settings.operation_timeout_seconds
            return await topology.count(self._connections[0], self._route.alone_queue, timeout)

    async def take_alone(self, on_delivery: Callable[[Delivery], None]) -> bool:
        """Take one message that is to be handled alone; False where there is none. Raises SessionLost."""
        async with self._guard(f"get from {self._route.alone_queue}"):
            message = await self._consume_channel.basic_get(self._route.alone_queue)
        if not isinstance(message.delivery, Basic.GetOk):
            return False
        on_delivery(self._delivery(message, is_alone=True))
        return True

    async def declare_alone(self) -> None:
        """Make the queue for messages that are handled alone. Raises SessionLost."""
        async with self._guard("declare"):
            await topology.declare_alone(self._connections[0], self._route, self._settings)

    def _delivery(self, message: DeliveredMessage, *, is_alone: bool = False) -> Delivery:
        frame = message.delivery
        if not isinstance(frame, (Basic.Deliver, Basic.GetOk)) or frame.delivery_tag is None:
            raise TypeError(f"expected a delivery, got {type(frame).__name__}")
        self._ledger.delivered(frame.delivery_tag)
        self._last_delivery = time.monotonic()
        return Delivery(
            session=self,
            tag=frame.delivery_tag,
            body=bytes(message.body),
            properties=message.header.properties,
            exchange=frame.exchange or "",
            routing_key=frame.routing_key or "",
            redelivered=bool(frame.redelivered),
            is_alone=is_alone,
        )

    def _on_cancelled(self, _: object) -> None:
        self.fail("consumer_cancelled", f"the broker cancelled the consumer of {self._route.consumed}")

    async def stop_consuming(self) -> None:
        """Take no more messages; those taken stay ours to settle. Does nothing where none are taken."""
        tag, self._consumer_tag = self._consumer_tag, None
        if tag is None or self.is_lost:
            return
        with suppress(SessionLost):  # noted by the guard: then nothing arrives any more either
            async with self._guard("cancel the consumer"):
                await self._consume_channel.basic_cancel(tag)

    async def check(self) -> None:
        """Ask the broker for a sign of life on both channels, and whether the consumer is still there."""
        with suppress(SessionLost):  # noted by the guard
            async with self._guard("check"):
                await self._consume_channel.basic_qos(prefetch_count=self._settings.prefetch)
            # A client library that drops a cancelled consumer silently still forgets its tag.
            consumers = self._consume_channel.consumers  # type: ignore[attr-defined]
            if self._consumer_tag is not None and self._consumer_tag not in consumers:
                self._on_cancelled(None)
            async with self._guard("check"):
                await self.publisher.check()

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge messages together; return when that is written out. Raises SessionLost: they will come again."""
        async with self._guard("ack"), self._settling:
            acks = self._ledger.acks(delivery.tag for delivery in deliveries if delivery.session is self)
            for number, ack in enumerate(acks, 1):
                await self._consume_channel.basic_ack(ack.tag, multiple=ack.multiple, wait=number == len(acks))

    async def hand_back(self, delivery: Delivery) -> None:
        """Return a message to its queue, at once and uncounted where the broker allows. Raises SessionLost."""
        async with self._guard("hand back"), self._settling:
            await self._consume_channel.basic_nack(delivery.tag, requeue=True, wait=False)
            self._ledger.returned(delivery.tag)

    async def publish(self, exchange: str, routing_key: str, body: bytes, properties: Basic.Properties) -> None:
        """Publish one message and await its confirm. Raises SessionLost or Undeliverable."""
        async with self._noting("publish"):  # in time: the publisher sees to it
            await self.publisher.publish(exchange, routing_key, body, properties)

    async def publish_all(self, letters: Sequence[Letter]) -> list[Undeliverable | None]:
        """Publish several and await their confirms: None, in order, for each that was confirmed. Raises SessionLost."""
        async with self._noting("publish"):
            return await self.publisher.publish_all(letters)

    async def repair(self) -> None:
        """Declare again whatever was deleted meanwhile; who asks together shares one round. Raises SessionLost."""
        before = self._repairs
        async with self._repair:
            if self._repairs != before:
                return
            async with self._guard("declare"):
                await topology.declare(self._connections[0], self._route, self._settings)
            self._repairs += 1

    @asynccontextmanager
    async def _guard(self, what: str) -> AsyncIterator[None]:
        """:func:`guard`, and a session lost is noted as lost."""
        async with self._noting(what), guard(what, self._settings.operation_timeout_seconds):
            yield

    @asynccontextmanager
    async def _noting(self, what: str) -> AsyncIterator[None]:
        if self.is_lost:
            raise SessionLost("closed", f"{what}: {self.lost.result()}")
        try:
            yield
        except SessionLost as error:
            self.fail(error.cause, error.detail)
            raise

    async def close(self) -> None:
        """Close both connections, in bounded time, whatever state they are in."""
        self.fail("closed")
        await asyncio.gather(*(close(connection) for connection in self._connections))
