"""A worker: its parts put together, started, watched and stopped in order."""

from __future__ import annotations

import argparse
import asyncio
import logging
import platform
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from feedmill import __version__, logs
from feedmill.broker.candidate import Forwarder, ShadowSettler
from feedmill.broker.session import Delivery, Session
from feedmill.broker.settle import Settler
from feedmill.broker.supervisor import PART as CONSUMER
from feedmill.broker.supervisor import Supervisor
from feedmill.contract import Route
from feedmill.errors import SettingsError
from feedmill.gate import Gate
from feedmill.health import Health
from feedmill.instruments import Instruments
from feedmill.lifecycle import EXIT_USAGE, Shutdown, leave, run_process
from feedmill.metrics import MetricFamilies, new_metrics
from feedmill.pipeline.handler import Handler
from feedmill.pipeline.item import Stage
from feedmill.pipeline.pipeline import Pipeline
from feedmill.probes import ProbeServer, worker_routes
from feedmill.routing import RoutingFile
from feedmill.settings import BatchSettings, BrokerSettings, Group, LogSettings, ProbeSettings, RoutingSettings, read
from feedmill.settings_help import describe
from feedmill.tracing import make_tracer

log = logging.getLogger(__name__)

MODEL = "model"
BEAT_SECONDS = 0.25
REPORT_SECONDS = 10.0

OpenHandler = Callable[[Instruments], AbstractAsyncContextManager[Handler[Any, Any, Any]]]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The groups that every worker reads."""

    broker: BrokerSettings = field(default_factory=lambda: read(BrokerSettings))
    batch: BatchSettings = field(default_factory=lambda: read(BatchSettings))
    probes: ProbeSettings = field(default_factory=lambda: read(ProbeSettings))
    logs: LogSettings = field(default_factory=lambda: read(LogSettings))
    routing: RoutingSettings = field(default_factory=lambda: read(RoutingSettings))


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """What tells one worker from another.

    ``open_handler`` loads what the handler needs (model, store) and closes it at the end; ``dependencies`` are the
    parts of readiness that its ``ready()`` speaks for; ``groups`` are its own settings, for ``--help``.
    """

    route: Route
    open_handler: OpenHandler
    dependencies: tuple[str, ...]
    groups: tuple[type[Group], ...] = ()


class Worker:
    """One worker on the running event loop. Several may share a loop and metric families."""

    def __init__(self, kind: WorkerKind, settings: WorkerSettings, families: MetricFamilies | None = None) -> None:
        self.kind = kind
        self.settings = settings
        parts = (MODEL, CONSUMER, *kind.dependencies)
        self.health = Health(parts, settings.batch.stuck_after_seconds)
        self.metrics = new_metrics(kind.route.worker, families)
        self._instruments = Instruments(self.health, self.metrics, make_tracer(kind.route.worker))

    async def run(self, shutdown: Shutdown) -> None:
        """Work until ``shutdown`` is requested, then drain. Raises what can't be healed."""
        beat = asyncio.create_task(self._beat(), name="heartbeat")
        try:
            # The broker is connected to while the handler loads its model; the gate lets messages come later.
            async with (
                self._contact() as contact,
                self.kind.open_handler(replace(self._instruments, shutdown=shutdown)) as handler,
            ):
                self.health.set(MODEL, None)
                await self._work(handler, contact, shutdown)
        finally:
            beat.cancel()

    @asynccontextmanager
    async def _contact(self) -> AsyncIterator[_Contact]:
        intake = _LateIntake()
        route = routed(self.kind.route, self.settings.routing)
        supervisor = Supervisor(self.settings.broker, route, self._instruments, intake)
        running = asyncio.create_task(supervisor.run(), name="broker")
        try:
            yield _Contact(route, supervisor, running, intake)
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def _work(self, handler: Handler[Any, Any, Any], contact: _Contact, shutdown: Shutdown) -> None:
        supervisor = contact.supervisor
        is_stable = self.settings.routing.role == "stable"
        gate = Gate(handler.ready, self.kind.dependencies, self._instruments, handles_alone=is_stable)
        routing = RoutingFile(self._routing_path(), self.settings.routing.routing_poll_seconds, self.metrics)
        settler = self._settler(contact.route, routing)
        max_body_bytes = self.settings.broker.max_body_bytes
        pipeline = Pipeline(handler, settler, self.settings.batch, max_body_bytes, self._instruments, gate.trip)
        contact.intake.pipeline = pipeline
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(contact.lasting(), name="contact"),
                group.create_task(pipeline.run(), name="pipeline"),
                group.create_task(routing.run(), name="routing"),
            ]
            watching = group.create_task(gate.run(supervisor, pipeline), name="gate")
            await shutdown.requested.wait()
            watching.cancel()
            await self._drain(supervisor, pipeline, gate, shutdown)
            for task in tasks:
                task.cancel()

    def _routing_path(self) -> str:
        """Only the stable worker routes."""
        settings = self.settings.routing
        return settings.routing_file if settings.role == "stable" else ""

    def _settler(self, route: Route, routing: RoutingFile) -> Settler | ShadowSettler:
        settings = self.settings.routing
        if settings.role == "shadow":
            return ShadowSettler(route, self.metrics)
        forwarder = Forwarder(route, routing, settings.mirror_ttl_seconds, self.metrics)
        is_candidate = settings.role == "candidate"
        return Settler(self.settings.broker, route, None if is_candidate else forwarder, is_candidate=is_candidate)

    async def _drain(
        self, supervisor: Supervisor, pipeline: Pipeline[Any, Any, Any], gate: Gate, shutdown: Shutdown
    ) -> None:
        """Stop intake, hand back what has not started, finish what has; in the end hand back the rest."""
        began = time.monotonic()
        pipeline.close_intake()
        orderly = asyncio.ensure_future(_finish_started(supervisor, pipeline, gate))
        hurried = asyncio.ensure_future(shutdown.urgent.wait())
        timeout = self.settings.batch.drain_timeout_seconds
        await asyncio.wait([orderly, hurried], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in (orderly, hurried):
            task.cancel()
        await asyncio.gather(orderly, hurried, return_exceptions=True)
        left = pipeline.in_flight
        await pipeline.hand_back(Stage.SETTLING)
        log.info("drained in %.1f s, %d messages handed back unfinished", time.monotonic() - began, left)

    async def _beat(self) -> None:
        """Prove that the loop runs, measure how late it is, and say now and then what was done."""
        report = _Report(self)
        while True:
            due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self.health.beat()
            self.metrics.loop_lag_seconds.observe(max(0.0, time.monotonic() - due))
            self.metrics.ready.set(self.health.is_ready())
            self.metrics.loop_tasks.set(len(asyncio.all_tasks()))
            report.tick()


class _LateIntake:
    """The pipeline's intake, for a session that is opened before there is a pipeline: until then nothing comes."""

    def __init__(self) -> None:
        self.pipeline: Pipeline[Any, Any, Any] | None = None

    def take(self, delivery: Delivery) -> None:
        if self.pipeline is None:
            raise RuntimeError("a delivery before anything was consumed")
        self.pipeline.take(delivery)

    def forget(self, session: Session) -> None:
        if self.pipeline is not None:
            self.pipeline.forget(session)


@dataclass(frozen=True, slots=True)
class _Contact:
    """The supervisor of the broker's sessions, at work already, and where the pipeline is put that they deliver to."""

    route: Route
    supervisor: Supervisor
    running: asyncio.Task[None]
    intake: _LateIntake

    async def lasting(self) -> None:
        """As long as the supervisor runs: its failure ends whoever awaits this, and cancelling this ends it."""
        await self.running


def routed(route: Route, settings: RoutingSettings) -> Route:
    """The route with the queue that a worker of this role consumes."""
    own = route.candidate_queue if settings.role != "stable" else ""
    return replace(route, source=settings.input_queue or own)


async def _finish_started(supervisor: Supervisor, pipeline: Pipeline[Any, Any, Any], gate: Gate) -> None:
    await supervisor.end("shutting down")
    # While a dependency is away, what has started can't be finished either, and will not be waited for.
    await pipeline.hand_back(Stage.STARTED if gate.tripped.is_set() else Stage.WAITING)
    gate.tripped.clear()
    log.info("draining: %d messages started", pipeline.in_flight)
    await gate.until_idle(pipeline)


class _Report:
    """At most one line every ten seconds: what was done since the last."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._last = 0
        self._due = time.monotonic() + REPORT_SECONDS

    def tick(self) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + REPORT_SECONDS
        answered = self._worker.metrics.outcomes.get("answered", 0)
        if answered > self._last:
            log.info("answered %d messages in the last %.0f s", answered - self._last, REPORT_SECONDS)
        self._last = answered


def run_worker(kind: WorkerKind, argv: list[str] | None = None, *, more: str = "") -> NoReturn:
    """The worker's command: parse arguments, run until a signal, exit. ``more``: a line for its ``--help``."""
    name = kind.route.worker
    groups: tuple[type[Group], ...] = (
        BrokerSettings,
        *kind.groups,
        BatchSettings,
        ProbeSettings,
        LogSettings,
        RoutingSettings,
    )
    parser = argparse.ArgumentParser(
        prog=f"python -m feedmill_{name}",
        description=f"Feedmill's {name} worker: {kind.route.queue} -> {kind.route.result_queue}. Stops on SIGTERM."
        + (f"\n\n{more}" if more else ""),
        epilog="settings, from the environment or a .env file:\n\n" + describe(groups),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args(argv)
    try:
        settings = WorkerSettings()
    except SettingsError as error:
        parser.exit(EXIT_USAGE, f"{parser.prog}: {error}\n")
    logs.configure(settings.logs, name)
    leave(run_process(lambda shutdown: _run_with_probes(kind, settings, shutdown)))


async def _run_with_probes(kind: WorkerKind, settings: WorkerSettings, shutdown: Shutdown) -> None:
    worker = Worker(kind, settings)
    version = {"worker": kind.route.worker, "feedmill": __version__, "python": platform.python_version()}
    routes = worker_routes(worker.health, worker.metrics.registry, version)
    server = ProbeServer(routes, settings.probes.probe_host, settings.probes.probe_port)
    server.start()
    try:
        running = asyncio.ensure_future(worker.run(shutdown))
        stop_early = asyncio.ensure_future(shutdown.requested.wait())
        await asyncio.wait([running, stop_early], return_when=asyncio.FIRST_COMPLETED)
        stop_early.cancel()
        if worker.health.readiness()[MODEL] is not None and not running.done():
            running.cancel()  # still loading: there is nothing to drain
            with suppress(asyncio.CancelledError):
                await running
            return
        await running
    finally:
        server.stop()
