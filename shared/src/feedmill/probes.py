"""The probes: an aiohttp application on its own thread and event loop, so that a busy worker still answers.

aiohttp is imported by that thread, while a model loads: it takes a fifth of a worker's imports.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from feedmill.health import Health

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)

_START_TIMEOUT_SECONDS = 10.0

Route = tuple[str, Callable[["web.Request"], Awaitable["web.StreamResponse"]]]


class ProbeServer:
    """An HTTP server on a daemon thread. ``port`` is the real one once started."""

    def __init__(self, routes: list[Route], host: str, port: int) -> None:
        self._routes = routes
        self._host = host
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._serve, name="probes", daemon=True)
        self._serving = threading.Event()

    def start(self) -> None:
        """Listen; who asks is answered a moment later. Raises OSError where the address can't be had."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self.port), family=family)
        except OSError as error:
            self._loop.close()
            raise OSError(f"probes: can't listen on {self._host}:{self.port}: {error}") from error
        self.port = int(listener.getsockname()[1])
        self._listener = listener
        self._thread.start()
        log.info("probes listen on %s:%d", self._host, self.port)

    def stop(self) -> None:
        """Close the server and end its thread."""
        if self._thread.is_alive():
            self._serving.wait(_START_TIMEOUT_SECONDS)
        if self._thread.is_alive() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_START_TIMEOUT_SECONDS)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
            self._serving.set()
            self._loop.run_forever()
        finally:
            self._serving.set()
            if self._runner is not None:
                self._loop.run_until_complete(self._runner.cleanup())
            self._listener.close()
            self._loop.close()

    async def _listen(self) -> None:
        from aiohttp import web

        app = web.Application(client_max_size=1024)
        for path, handler in self._routes:
            app.router.add_get(path, handler)
        # No access log: a probe every few seconds says nothing. A short shutdown: scrapers may keep connections.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()


def json_response(value: Any, status: int = 200) -> web.Response:
    from aiohttp import web

    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def worker_routes(health: Health, registry: CollectorRegistry, version: dict[str, str]) -> list[Route]:
    """``/livez``, ``/readyz``, ``/metrics`` and ``/version`` of one worker."""

    async def livez(_: web.Request) -> web.StreamResponse:
        problems = health.liveness()
        return json_response({"live": not problems, "problems": problems}, 503 if problems else 200)

    async def readyz(_: web.Request) -> web.StreamResponse:
        parts = health.readiness()
        missing = {part: problem for part, problem in parts.items() if problem is not None}
        body = {"ready": not missing, "missing": missing, "parts": {part: part not in missing for part in parts}}
        return json_response(body, 503 if missing else 200)

    async def metrics(_: web.Request) -> web.StreamResponse:
        from aiohttp import web

        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def show_version(_: web.Request) -> web.StreamResponse:
        return json_response(version)

    return [("/livez", livez), ("/readyz", readyz), ("/metrics", metrics), ("/version", show_version)]
