"""Opening one connection to the broker."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from urllib.parse import parse_qs, urlsplit

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.connection import make_url

from feedmill import __version__
from feedmill.broker.errors import SessionLost, describe, guard
from feedmill.broker.lenient import tolerate_bad_properties
from feedmill.broker.transport import GatheringConnection
from feedmill.errors import SettingsError
from feedmill.settings import BrokerSettings

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_SECONDS = 3.0
"""A healthy broker closes in milliseconds; a dead one would never answer."""


async def connect(settings: BrokerSettings, purpose: str) -> AbstractConnection:
    """Connect, with a name by which the connection can be told apart in the broker's management.

    Raises:
        SessionLost: the broker can't be reached, refuses the credentials, or does not answer in time.
        SettingsError: the certificate file can't be read.
    """
    tolerate_bad_properties()
    url = settings.amqp_url()
    if "heartbeat" not in parse_qs(urlsplit(url).query):
        url = str(make_url(url, heartbeat=settings.heartbeat_seconds))
    name = f"feedmill-{purpose}@{socket.gethostname()}:{os.getpid()}"
    connection = GatheringConnection(
        make_url(url),
        ssl_context=tls_context(settings),
        client_properties={"connection_name": name, "product": "Feedmill", "version": __version__},
    )
    try:
        async with guard(f"connect to {settings.display_url()}", settings.connect_timeout_seconds):
            await connection.connect(timeout=settings.connect_timeout_seconds)
    except BaseException:
        connection.abort()
        raise
    return connection


def server_version(connection: AbstractConnection) -> tuple[int, ...]:
    """Major, minor and patch as the broker told them; empty where it told none."""
    transport = connection.transport
    told = transport.connection.server_properties.get("version") if transport else None
    text = told.decode("ascii", "replace") if isinstance(told, bytes | bytearray) else str(told)
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


async def close(connection: AbstractConnection) -> None:
    """Close a connection, in bounded time, whatever state it is in."""
    try:
        async with guard("close", CLOSE_TIMEOUT_SECONDS):
            await connection.close()
    except SessionLost as error:
        log.debug("connection not closed cleanly: %s", error)


async def open_channel(connection: AbstractConnection, *, confirms: bool) -> AbstractChannel:
    """A new channel; with ``confirms``, one on which returned messages raise.

    Raises:
        SessionLost: the connection has been closed meanwhile, of which the client library tells by a RuntimeError.
    """
    try:
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize()
    except RuntimeError as error:
        raise SessionLost("connection_closed", f"open channel: {describe(error)}") from error
    return channel


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """The context for amqps://: the peer's name and chain are always checked. None for amqp://."""
    if not settings.amqp_url().startswith("amqps://"):
        return None
    try:
        return ssl.create_default_context(cafile=settings.tls_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"RABBITMQ_CA_FILE: expected a readable PEM file: {error}") from error
