"""Declaring queues and exchanges passively first.

What exists is used as it is, whatever its type and arguments, so that neither side's declaration ever fails the
other's. What is missing is created as the contract says. A failed declaration closes its channel, so each question is
asked on a channel of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aio_pika.abc
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelClosed, ChannelNotFoundEntity
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from feedmill.broker.connect import open_channel
from feedmill.broker.errors import SessionLost, guard
from feedmill.contract import Route
from feedmill.settings import BrokerSettings

log = logging.getLogger(__name__)

Arguments = dict[str, Any]


async def declare(connection: AbstractConnection, route: Route, settings: BrokerSettings) -> None:
    """Make sure that everything a worker needs is there. Raises SessionLost."""
    timeout = settings.operation_timeout_seconds
    await _ensure_exchange(connection, route.exchange, timeout)
    await _ensure_queue(connection, route.queue, queue_arguments(settings), timeout)
    await _bind(connection, route.queue, route.exchange, timeout)
    if route.consumed != route.queue:
        # A candidate's: bound to nothing, the stable worker alone publishes to it.
        await _ensure_queue(connection, route.consumed, queue_arguments(settings), timeout)
    await declare_results(connection, route, settings)
    await _ensure_queue(connection, route.dead_queue, queue_arguments(settings), timeout)
    for delay in settings.retry_delays_seconds:
        arguments = retry_arguments(route, delay, settings)
        await _ensure_queue(connection, route.retry_queue(delay), arguments, timeout)


async def declare_results(connection: AbstractConnection, route: Route, settings: BrokerSettings) -> None:
    """Make sure that results find a queue: one may have been deleted, or never bound. Raises SessionLost."""
    timeout = settings.operation_timeout_seconds
    await _ensure_queue(connection, route.result_queue, queue_arguments(settings), timeout)
    await _bind(connection, route.result_queue, route.exchange, timeout)


def queue_arguments(settings: BrokerSettings) -> Arguments:
    """A classic queue has no arguments: so a producer that declares it as ever agrees with us."""
    return {"x-queue-type": "quorum"} if settings.queue_type == "quorum" else {}


def retry_arguments(route: Route, delay_seconds: int, settings: BrokerSettings) -> Arguments:
    """A queue without consumers: messages wait out their time, then go back to the input queue."""
    arguments = queue_arguments(settings) | {
        "x-message-ttl": delay_seconds * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": route.queue,
    }
    if settings.queue_type == "quorum":
        # Keep the message until the input queue has confirmed it; a quorum queue offers that only with reject-publish.
        arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    return arguments


async def declare_alone(connection: AbstractConnection, route: Route, settings: BrokerSettings) -> None:
    """Make the queue for messages that are handled alone, where that is permitted. Raises SessionLost."""
    try:
        await _ensure_queue(connection, route.alone_queue, alone_arguments(route), settings.operation_timeout_seconds)
    except SessionLost as error:
        if not isinstance(error.__cause__, ChannelNotFoundEntity):
            raise
        log.warning("%s is not there and can't be created: %s", route.alone_queue, error)


def alone_arguments(route: Route) -> Arguments:
    """Always a quorum queue, as its counting is what this queue is for; what nobody judges in time is a dead letter."""
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": route.dead_queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


async def count(connection: AbstractConnection, queue: str, timeout_seconds: float) -> int:
    """Messages that are ready in a queue; 0 where there is no such queue. Raises SessionLost."""
    async with guard(f"look at {queue}", timeout_seconds):
        with suppress(ChannelNotFoundEntity):
            async with _channel(connection) as channel:
                return (await channel.queue_declare(queue, passive=True)).message_count or 0
    return 0


async def _ensure_exchange(connection: AbstractConnection, name: str, timeout_seconds: float) -> None:
    await _passive_first(
        connection,
        f"exchange {name}",
        lambda channel: channel.exchange_declare(name, passive=True),
        lambda channel: channel.exchange_declare(name, exchange_type="direct", durable=True),
        timeout_seconds,
    )


async def _ensure_queue(
    connection: AbstractConnection, name: str, arguments: Arguments, timeout_seconds: float
) -> None:
    await _passive_first(
        connection,
        f"queue {name}",
        lambda channel: channel.queue_declare(name, passive=True),
        lambda channel: channel.queue_declare(name, durable=True, arguments=arguments),
        timeout_seconds,
    )


async def _passive_first(
    connection: AbstractConnection,
    what: str,
    look: Callable[[AbstractChannel], Awaitable[object]],
    create: Callable[[AbstractChannel], Awaitable[object]],
    timeout_seconds: float,
) -> None:
    async with guard(f"declare {what}", timeout_seconds):
        with suppress(ChannelNotFoundEntity):
            async with _channel(connection) as channel:
                await look(channel)
            return
        try:
            async with _channel(connection) as channel:
                await create(channel)
        except ChannelClosed:
            # Somebody else may have created it in between, with other arguments: then it is there, and that will do.
            async with _channel(connection) as channel:
                await look(channel)
        else:
            log.info("created %s", what)


async def _bind(connection: AbstractConnection, queue: str, exchange: str, timeout_seconds: float) -> None:
    async with guard(f"bind {queue} to {exchange}", timeout_seconds):
        try:
            async with _channel(connection) as channel:
                await channel.queue_bind(queue, exchange, routing_key=queue)
        except ChannelAccessRefused:
            # The operators may bind queues themselves and grant no more than consuming and publishing.
            log.warning("not permitted to bind %s to %s: relying on a binding that is there", queue, exchange)


@asynccontextmanager
async def _channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    channel = await open_channel(connection, confirms=False)
    try:
        yield await channel.get_underlay_channel()
    except asyncio.CancelledError:
        # Cancelled, or out of time: a broker that does not answer would not answer this either, and the connection is
        # about to be closed.
        raise
    except BaseException:
        await _close(channel)
        raise
    await _close(channel)


async def _close(channel: aio_pika.abc.AbstractChannel) -> None:
    with suppress(ChannelClosed, SessionLost):
        await channel.close()
