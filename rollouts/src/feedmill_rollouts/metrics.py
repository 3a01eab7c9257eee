"""The operator's own metrics, probes and their server."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

STALE_SECONDS = 300.0


class OperatorMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ticks = Counter(
            "feedmill_rollouts_looks_total", "Looks at a ModelRollout, by result", ("result",), registry=self.registry
        )
        self.costs = Counter(
            "feedmill_rollouts_deletion_costs_total", "Changes of a pod's deletion cost", registry=self.registry
        )
        self.phases = Counter("feedmill_rollouts_phases_total", "Phases entered", ("phase",), registry=self.registry)


METRICS = OperatorMetrics()


def application(is_ready: Callable[[], bool], last_tick: Callable[[], float]) -> web.Application:
    """/livez, /readyz and /metrics."""

    async def livez(_: web.Request) -> web.Response:
        silent = time.monotonic() - last_tick()
        return web.json_response({"silentSeconds": round(silent)}, status=200 if silent < STALE_SECONDS else 503)

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"ready": is_ready()}, status=200 if is_ready() else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(METRICS.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app
