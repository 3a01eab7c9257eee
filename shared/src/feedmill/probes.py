"""The probes: an aiohttp application on its own thread and event loop, so that a busy worker still answers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from feedmill.health import Health

log = logging.getLogger(__name__)

_START_TIMEOUT_SECONDS = 10.0

Route = tuple[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]


class ProbeServer:
    """An HTTP server on a daemon thread. ``port`` is the real one once started."""

    def __init__(self, routes: list[Route], host: str, port: int) -> None:
        self._routes = routes
        self._host = host
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._serve, name="probes", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Listen. Raises OSError where the address can't be had."""
        self._thread.start()
        if not self._started.wait(_START_TIMEOUT_SECONDS):
            raise OSError(f"probes: not listening on {self._host}:{self.port} after {_START_TIMEOUT_SECONDS:.0f} s")
        if self._failure is not None:
            raise OSError(f"probes: can't listen on {self._host}:{self.port}: {self._failure}") from self._failure
        log.info("probes listen on %s:%d", self._host, self.port)

    def stop(self) -> None:
        """Close the server and end its thread."""
        if self._thread.is_alive() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_START_TIMEOUT_SECONDS)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        except OSError as error:
            self._failure = error
            self._started.set()
            self._loop.close()
            return
        self._started.set()
        try:
            self._loop.run_forever()
        finally:
            if self._runner is not None:
                self._loop.run_until_complete(self._runner.cleanup())
            self._loop.close()

    async def _listen(self) -> None:
        app = web.Application(client_max_size=1024)
        for path, handler in self._routes:
            app.router.add_get(path, handler)
        # No access log: a probe every few seconds says nothing. A short shutdown: scrapers may keep connections.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        addresses = self._runner.addresses
        self.port = int(addresses[0][1])


def json_response(value: Any, status: int = 200) -> web.Response:
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
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def show_version(_: web.Request) -> web.StreamResponse:
        return json_response(version)

    return [("/livez", livez), ("/readyz", readyz), ("/metrics", metrics), ("/version", show_version)]
