"""The backend's side of the contract: sending requests and hearing their results, for trying out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from feedmill.broker import topology
from feedmill.broker.connect import connect
from feedmill.broker.errors import SessionLost, Undeliverable, describe, guard
from feedmill.broker.publisher import Publisher
from feedmill.contract import Route
from feedmill.settings import BrokerSettings

WINDOW = 128
"""Publishes that wait for their confirms at the same time; more brings nothing, and holds more bodies."""

CLOSE_TIMEOUT_SECONDS = 3.0
_PERSISTENT = 2


@dataclass(frozen=True, slots=True)
class Request:
    """One message for a worker. ``id`` goes out as message_id and correlation_id."""

    route: Route
    body: bytes
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Answer:
    """A result: when the request was handed to the broker and when the result was here, by the monotonic clock."""

    request: Request
    body: bytes
    sent: float
    received: float

    @property
    def seconds(self) -> float:
        return self.received - self.sent

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Returned:
    """A request that no queue took."""

    request: Request
    why: str


class Client:
    """A connection to the broker. Get one with :func:`open_client`; it can't be used once ``lost`` is set."""

    def __init__(self, settings: BrokerSettings, connection: AbstractConnection) -> None:
        self._settings = settings
        self._connection = connection
        self._publisher: Publisher
        self.lost: asyncio.Future[SessionLost] = asyncio.get_running_loop().create_future()
        connection.close_callbacks.add(lambda _, error: self._fail(describe(error)))

    async def start(self) -> None:
        """Open the channel for publishing. Raises SessionLost."""
        self._publisher = Publisher(await self.channel(confirms=True), self._settings.operation_timeout_seconds)

    async def channel(self, *, confirms: bool) -> AbstractChannel:
        """A channel of its own; when it closes, the client is lost. Raises SessionLost."""
        async with self.call("open channel"):
            channel = self._connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
            await channel.initialize()
            channel.close_callbacks.add(lambda _, error: self._fail(describe(error)))
            return await channel.get_underlay_channel()

    async def declare(self, route: Route) -> None:
        """Make sure that ``route`` has its queues, so that what is sent waits for its worker. Raises SessionLost."""
        await topology.declare(self._connection, route, self._settings)

    async def publish(self, request: Request) -> None:
        """Publish a request, persistent and mandatory, and await its confirm. Raises SessionLost or Undeliverable."""
        properties = Basic.Properties(
            content_type="application/json",
            delivery_mode=_PERSISTENT,
            message_id=request.id,
            correlation_id=request.id,
            app_id="feedmill-cli",
            timestamp=datetime.now(UTC),
        )
        await self.republish(request.route.exchange, request.route.queue, request.body, properties)

    async def republish(self, exchange: str, routing_key: str, body: bytes, properties: Basic.Properties) -> None:
        """Publish a message with properties of its own and await its confirm. Raises SessionLost or Undeliverable."""
        await self._publisher.publish(exchange, routing_key, body, properties)

    async def listen(self, route: Route, on_result: Callable[[str, bytes], None]) -> None:
        """Hear a copy of every result of ``route`` from now on: ``on_result(correlation_id, body)``.

        The copies come through a private queue that goes away with the connection: nothing is taken from those who
        consume the result queue. Raises SessionLost.
        """

        async def deliver(message: DeliveredMessage) -> None:
            frame = message.delivery
            # On a fanout exchange of the user's own, the requests come this way too.
            if isinstance(frame, Basic.Deliver) and frame.routing_key == route.result_queue:
                on_result(str(message.header.properties.correlation_id or ""), bytes(message.body))

        channel = await self.channel(confirms=False)
        async with self.call(f"listen to {route.result_queue}"):
            queue = (await channel.queue_declare("", exclusive=True, auto_delete=True)).queue or ""
            await channel.queue_bind(queue, route.exchange, routing_key=route.result_queue)
            await channel.basic_consume(queue, deliver, no_ack=True)

    async def message_count(self, queue: str) -> int | None:
        """How many messages wait in ``queue``; None where there is no such queue. Raises SessionLost."""
        async with self.call(f"look at {queue}"):
            # A channel of its own: a failed declaration closes it.
            channel = self._connection.channel(publisher_confirms=False)
            await channel.initialize()
            try:
                answer = await (await channel.get_underlay_channel()).queue_declare(queue, passive=True)
            except ChannelNotFoundEntity:
                return None
            await channel.close()
        return answer.message_count or 0

    def call(self, what: str) -> AbstractAsyncContextManager[None]:
        """For calls on a :meth:`channel`: in time, and SessionLost for whatever breaks it."""
        return guard(what, self._settings.operation_timeout_seconds)

    def _fail(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(SessionLost("connection to the broker lost", why))


@asynccontextmanager
async def open_client(settings: BrokerSettings) -> AsyncIterator[Client]:
    """A connected client, closed at the end. Raises SessionLost or SettingsError."""
    connection = await connect(settings, "cli")
    try:
        client = Client(settings, connection)
        await client.start()
        yield client
    finally:
        await _close(connection)


async def _close(connection: AbstractConnection) -> None:
    try:
        async with guard("close", CLOSE_TIMEOUT_SECONDS):
            await connection.close()
    except SessionLost:
        return  # it was lost before: nothing is left to close


class Inbox:
    """Requests that wait for their results, told apart by correlation_id. The first result of a request counts."""

    def __init__(self, on_answer: Callable[[Answer], None] | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self._pending: dict[str, tuple[Request, float]] = {}
        self._on_answer = on_answer
        self._news = asyncio.Event()

    @property
    def pending(self) -> list[Request]:
        """What has no result yet."""
        return [request for request, _ in self._pending.values()]

    def expect(self, request: Request) -> None:
        """Note that ``request`` is about to be published."""
        self._pending[request.id] = (request, time.monotonic())

    def forget(self, request: Request) -> None:
        """Note that ``request`` was not published after all."""
        self._pending.pop(request.id, None)

    def receive(self, correlation_id: str, body: bytes) -> None:
        """Take a result; one that belongs to nothing of ours is left out."""
        request, sent = self._pending.pop(correlation_id, (None, 0.0))
        if request is None:
            return
        answer = Answer(request, body, sent, time.monotonic())
        self.answers[correlation_id] = answer
        self._news.set()
        if self._on_answer is not None:
            self._on_answer(answer)

    async def wait(self, patience_seconds: float, lost: asyncio.Future[SessionLost]) -> bool:
        """Wait until nothing is pending (True), or until no result has come for ``patience_seconds`` (False).

        Raises:
            SessionLost: the connection is gone, and with it the private queue.
        """
        while self._pending:
            self._news.clear()
            news = asyncio.ensure_future(self._news.wait())
            try:
                first: list[asyncio.Future[Any]] = [news, lost]
                done, _ = await asyncio.wait(first, timeout=patience_seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            if lost in done:
                raise lost.result()
            if not done:
                return False
        return True


async def send_all(
    client: Client, requests: Sequence[Request], inbox: Inbox | None = None, on_sent: Callable[[], None] | None = None
) -> list[Returned]:
    """Publish ``requests``, at most ``WINDOW`` of them in flight together; answer those that no queue took.

    Raises:
        SessionLost: the connection is gone; the text says how many were confirmed.
    """
    lost: list[SessionLost] = []
    returned: list[Returned] = []
    confirmed = 0

    async def lane(waiting: Iterable[Request]) -> None:
        nonlocal confirmed
        for request in waiting:
            if lost:
                return
            try:
                await _send(client, request, inbox)
            except Undeliverable as error:
                returned.append(Returned(request, str(error)))
            except SessionLost as error:
                lost.append(error)
            else:
                confirmed += 1
                if on_sent is not None:
                    on_sent()

    waiting = iter(requests)  # shared: each lane takes the next one
    await asyncio.gather(*(lane(waiting) for _ in range(min(WINDOW, len(requests)))))
    if lost:
        raise SessionLost(lost[0].cause, f"{lost[0].detail} ({confirmed} of {len(requests)} messages were confirmed)")
    return returned


async def _send(client: Client, request: Request, inbox: Inbox | None) -> None:
    if inbox is None:
        await client.publish(request)
        return
    inbox.expect(request)
    try:
        await client.publish(request)
    except BaseException:
        inbox.forget(request)
        raise
