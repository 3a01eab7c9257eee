"""kopf's handlers: thin. Each ModelRollout has a daemon that looks, decides and acts until the object is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import kopf
from kopf import OperatorRegistry

from feedmill_rollouts import kindness
from feedmill_rollouts.cluster import ApiError, Cluster
from feedmill_rollouts.looking import Window
from feedmill_rollouts.metrics import METRICS
from feedmill_rollouts.objects import GROUP
from feedmill_rollouts.reconcile import Reconciler, utc_now

log = logging.getLogger(__name__)

FINALIZER = f"{GROUP}/rollouts"
RETRY_SECONDS = 5.0
FORGET_SECONDS = 900.0
"""A deletion that fails for so long goes through all the same: a finalizer must never hold an object for ever."""


class Rollouts:
    """The handlers, and the sessions that they share."""

    def __init__(self, namespace: str, speed: float = 1.0) -> None:
        """``speed`` divides every pause: tests do not wait as long as a cluster may."""
        self._namespace = namespace
        self._speed = speed
        self._changed: dict[str, asyncio.Event] = {}
        self._windows: dict[str, Window] = {}
        self.last_tick = time.monotonic()

    def register(self, registry: OperatorRegistry) -> None:
        resource = (GROUP, "v1alpha1", "modelrollouts")
        kopf.on.event(*resource, registry=registry)(self.on_event)
        kopf.on.delete(*resource, registry=registry, timeout=FORGET_SECONDS, backoff=RETRY_SECONDS / self._speed)(
            self.on_delete
        )
        kopf.daemon(*resource, registry=registry, cancellation_timeout=10, backoff=RETRY_SECONDS / self._speed)(
            self.look_after
        )
        kopf.on.startup(registry=registry)(self.configure)
        kopf.on.login(registry=registry)(login)

    def configure(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        """One replica with Recreate, and every status write checked for conflicts: docs/adr/0006-one-operator.md."""
        settings.peering.standalone = True
        settings.scanning.disabled = True  # one namespace, one resource: no right to watch what is the cluster's
        settings.persistence.finalizer = FINALIZER
        settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
        settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
        settings.posting.enabled = False  # the decisions tell what is worth an event
        settings.watching.server_timeout = 300
        settings.networking.request_timeout = 30

    async def on_event(self, name: str, event: kopf.RawEvent, **_: Any) -> None:
        """Something changed: the daemon looks at once. Where one is gone, another may have waited for its target."""
        self._changed.setdefault(name, asyncio.Event()).set()
        if event["type"] == "DELETED":
            self._changed.pop(name, None)
            for changed in self._changed.values():
                changed.set()

    async def look_after(self, name: str, stopped: Any, **_: Any) -> None:
        """Until the object is gone or the operator ends. Errors of the API are waited out, for ever."""
        changed = self._changed.setdefault(name, asyncio.Event())
        while not stopped:
            changed.clear()
            try:
                async with self._connected() as reconciler:
                    pause = await reconciler.tick(name, utc_now())
                METRICS.ticks.labels("ok").inc()
            except ApiError as error:
                log.warning("rollout %s: %s, trying again", name, error)
                METRICS.ticks.labels("api_error").inc()
                pause = RETRY_SECONDS
            self.last_tick = time.monotonic()
            if pause is None:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), pause / self._speed)

    async def on_delete(self, name: str, **_: Any) -> None:
        try:
            async with self._connected() as reconciler:
                pause = await reconciler.forget(name, utc_now())
        except ApiError as error:
            raise kopf.TemporaryError(str(error), delay=RETRY_SECONDS / self._speed) from error
        if pause is not None:
            raise kopf.TemporaryError(f"rollout {name} goes back before it is removed", delay=pause / self._speed)

    async def keep_costs(self) -> None:
        """The pods' deletion costs, for ever."""
        while True:
            try:
                async with session() as (http, server), aiohttp.ClientSession() as pods:
                    METRICS.costs.inc(await kindness.keep(Cluster(http, server, self._namespace), pods))
            except (ApiError, kopf.LoginError) as error:
                log.warning("deletion costs: %s", error)
            self.last_tick = time.monotonic()
            await asyncio.sleep(kindness.INTERVAL_SECONDS / self._speed)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Reconciler]:
        """The reconciler with fresh credentials: a service account's token is renewed every hour."""
        async with session() as (http, server), aiohttp.ClientSession() as pods:
            yield Reconciler(Cluster(http, server, self._namespace), pods, self._windows)


def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
    """The pod's credentials, or those of the user's kubeconfig."""
    return kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)


@asynccontextmanager
async def session() -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """A session with the pod's credentials, or those of the user's kubeconfig, and the API server's address."""
    info = login(kopf.OperatorSettings())
    if info is None:
        raise kopf.LoginError("no service account and no kubeconfig: expected one of them")
    connector = aiohttp.TCPConnector(ssl=info.as_ssl_context() if info.server.startswith("https") else False)
    async with aiohttp.ClientSession(connector=connector, headers=info.as_http_headers()) as http:
        yield http, info.server
