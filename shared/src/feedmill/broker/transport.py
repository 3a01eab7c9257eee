"""A connection's transport that sends what is written together with one system call.

The client library writes each frame by itself, and each write is a system call: of a pipeline without a model they were
the largest part. Here the frames of a few turns of the event loop are gathered and sent at once. No timer is involved:
as soon as a turn adds nothing, what there is goes out.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from aio_pika.connection import Connection
from aiormq.connection import SSLContextProvider, TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

MAX_GATHERED_BYTES = 65_536
"""From here on nothing is gained by waiting for more: a system call costs little against copying this much."""


class GatheringConnection(Connection):
    """aio-pika's connection on a :class:`GatheringWriter`."""

    def __init__(self, url: URL, **kwargs: Any) -> None:
        super().__init__(url, **kwargs)
        self._factory = _Factory()
        self.kwargs["transport_factory"] = self._factory

    def abort(self) -> None:
        """Drop the socket, whatever became of it: one that stood as its opening was cancelled is nobody's to close."""
        if self._factory.transport is not None:
            self._factory.transport.abort()

    def __del__(self) -> None:
        """Drop a socket that nobody closed. The library's own closes it on whatever thread collects the object, which
        fails on any but the event loop's: "coroutine was never awaited", and the socket stays open."""
        with suppress(AttributeError, RuntimeError):  # never opened; the loop is closed
            if not self.is_closed and self._factory.transport is not None:
                self.loop.call_soon_threadsafe(self._factory.transport.abort)


class GatheringWriter(asyncio.StreamWriter):
    """A StreamWriter whose writes of one turn of the event loop, and of the turns right behind it, go out together."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.StreamReaderProtocol,
        reader: asyncio.StreamReader,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(transport, protocol, reader, loop)
        self._turns = loop
        self._gathered: list[bytes | bytearray | memoryview] = []
        self._gathered_bytes = 0
        self._seen = 0
        """How much was there at the last look: what has not grown since goes out."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._gathered:
            self._seen = 0
            self._turns.call_soon(self._look)
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= MAX_GATHERED_BYTES:
            self.flush()

    def _look(self) -> None:
        if len(self._gathered) > self._seen:
            self._seen = len(self._gathered)
            self._turns.call_soon(self._look)
        else:
            self.flush()

    def flush(self) -> None:
        """Send what was gathered."""
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        if gathered:
            super().write(b"".join(gathered) if len(gathered) > 1 else gathered[0])

    async def drain(self) -> None:
        self.flush()
        await super().drain()

    def write_eof(self) -> None:
        self.flush()
        super().write_eof()

    def close(self) -> None:
        self.flush()
        super().close()


class _Factory(TransportFactory):
    """What the client library's own factories do, with the other writer."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider: SSLContextProvider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, host=url.host or "localhost", port=url.port or 5672, ssl=context, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.transport = transport
        return reader, GatheringWriter(transport, protocol, reader, loop)
