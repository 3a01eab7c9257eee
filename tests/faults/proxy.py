"""A TCP proxy that misbehaves on demand: cuts, delays, throttles, stalls, half-closes, refuses. It can watch frames.

It runs on a thread and an event loop of its own; every method may be called from any thread.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from faults.frames import Frame, Splitter

CHUNK_BYTES = 65_536
CALL_SECONDS = 10.0

Direction = Literal["up", "down"]
"""``up``: from the client to the server."""

Watcher = Callable[[int, Direction, Frame], bytes | None]
"""Sees every frame before it is passed on, with the client's port. Answers None to pass it on, else what the client
gets in its stead (nothing, or a reply of the proxy's own). Called on the proxy's loop: nothing passes meanwhile."""


@dataclass(eq=False)
class _Link:
    """One client's connection and ours to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    is_frozen: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def abort(self) -> None:
        """Drop both at once, as a crash between them would."""
        for writer in (self.client, self.server):
            writer.transport.abort()
        for task in self.tasks:
            task.cancel()


class TcpProxy:
    """Forwards 127.0.0.1:``port`` to 127.0.0.1:``target_port``. With ``tls``, it takes TLS and forwards plainly."""

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None, split: Splitter | None = None) -> None:
        self.port = 0
        self.accepted = 0
        """Connections that clients have made so far."""
        self._target_port = target_port
        self._tls = tls
        self._split = split
        self._watcher: Watcher | None = None
        self._links: set[_Link] = set()
        self._stalled: set[Direction] = set()
        self._delay_seconds = 0.0
        self._bytes_per_second = 0.0
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._await(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._await(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    # ---- faults

    def cut(self) -> None:
        """Reset every connection. New ones are welcome."""
        self._call(lambda: [link.abort() for link in list(self._links)])

    def refuse(self, refuses: bool = True) -> None:
        """Reset every connection, now and as soon as it is made."""

        def change() -> None:
            self._refuses = refuses
            if refuses:
                for link in list(self._links):
                    link.abort()

        self._call(change)

    def stall(self, *directions: Direction) -> None:
        """Deliver nothing in these directions, as a network does that drops every packet. None: deliver all again."""

        def change() -> None:
            self._stalled = set(directions)
            self._wake()

        self._call(change)

    def freeze(self) -> None:
        """Deliver nothing ever more on the connections that exist: their peer is gone and cannot say so."""

        def change() -> None:
            for link in self._links:
                link.is_frozen = True

        self._call(change)

    def half_close(self) -> None:
        """End the stream towards every client, while what they send is still delivered."""

        def change() -> None:
            for link in list(self._links):
                with suppress(OSError, RuntimeError):
                    link.client.write_eof()

        self._call(change)

    def slow(self, delay_seconds: float = 0.0, bytes_per_second: float = 0.0) -> None:
        """Hold every chunk for ``delay_seconds`` and pass at most ``bytes_per_second`` (0: no limit) a direction."""

        def change() -> None:
            self._delay_seconds, self._bytes_per_second = delay_seconds, bytes_per_second

        self._call(change)

    def watch(self, watcher: Watcher) -> None:
        """Show it every frame, for good: :meth:`heal` does not end it. Needs ``split``."""
        assert self._split is not None, "this proxy does not know what it forwards"

        def change() -> None:
            self._watcher = watcher

        self._call(change)

    def heal(self) -> None:
        """No fault any more. Connections that were frozen are reset."""
        self.slow()
        self.stall()
        self.refuse(False)
        self._call(lambda: [link.abort() for link in list(self._links) if link.is_frozen])

    @property
    def connections(self) -> int:
        return len(self._links)

    # ---- inside

    def _call(self, change: Callable[[], object]) -> None:
        async def run() -> None:
            change()

        self._await(run())

    def _await(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(CALL_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [task for link in self._links for task in link.tasks]
        for link in list(self._links):
            link.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refuses:
            client.transport.abort()
            return
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, server)
        link.tasks = [
            asyncio.ensure_future(self._pump(link, reader, server, "up")),
            asyncio.ensure_future(self._pump(link, answers, client, "down")),
        ]
        self._links.add(link)
        await asyncio.gather(*link.tasks, return_exceptions=True)
        self._links.discard(link)
        for writer in (client, server):
            writer.close()

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        arrived = bytearray()
        try:
            while data := await reader.read(CHUNK_BYTES):
                if self._split is not None:
                    arrived += data
                    data = self._watched(link, direction, arrived)
                while direction in self._stalled or link.is_frozen:
                    await self._changed.wait()
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                if self._bytes_per_second:
                    await asyncio.sleep(len(data) / self._bytes_per_second)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            else:
                writer.close()
        except (OSError, RuntimeError):
            link.abort()

    def _watched(self, link: _Link, direction: Direction, arrived: bytearray) -> bytes:
        """The whole frames that have arrived, but for those that the watcher keeps."""
        assert self._split is not None
        passed = []
        for frame in self._split(arrived):
            own = None
            if self._watcher is not None:
                own = self._watcher(link.client.get_extra_info("peername")[1], direction, frame)
            if own is None:
                passed.append(frame.raw)
            elif own:
                link.client.write(own)
        return b"".join(passed)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
