"""A worker that runs in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from feedmill.lifecycle import Shutdown
from feedmill.settings import BatchSettings, BrokerSettings, LogSettings, ProbeSettings
from feedmill.worker import Worker, WorkerKind, WorkerSettings
from support.ci import queue_type

WAIT_SECONDS = 30.0


def settings(rabbit_url: str, *, batch: BatchSettings | None = None, **broker: Any) -> WorkerSettings:
    """Settings with short intervals: tests wait for what these lead to."""
    quick: dict[str, Any] = {
        "check_interval_seconds": 0.5,
        "operation_timeout_seconds": 5,
        "reconnect_max_seconds": 0.5,
        "retry_delays_seconds": (1, 2),
        "queue_type": queue_type(),
    }
    return WorkerSettings(
        broker=BrokerSettings(url=rabbit_url, **(quick | broker)),
        batch=batch or BatchSettings(),
        probes=ProbeSettings(),
        logs=LogSettings(),
    )


class Running:
    """A worker, and the switch that stops it."""

    def __init__(self, worker: Worker, shutdown: Shutdown, task: asyncio.Task[None]) -> None:
        self.worker = worker
        self.shutdown = shutdown
        self.task = task

    async def until_ready(self) -> None:
        await self.until(self.worker.health.is_ready, lambda: f"not ready: {self.worker.health.readiness()}")

    async def until_unready(self) -> None:
        await self.until(lambda: not self.worker.health.is_ready(), lambda: "still ready")

    async def until(self, condition: Callable[[], bool], what: Callable[[], str] = lambda: "") -> None:
        """Wait for a condition; fail with ``what`` when it does not come true, at once where the worker ended."""
        async with asyncio.timeout(WAIT_SECONDS) as limit:
            try:
                while not condition():
                    if self.task.done():
                        await self.task
                        raise AssertionError("the worker ended")
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                if limit.expired():
                    raise AssertionError(what() or f"not within {WAIT_SECONDS:.0f} s") from None
                raise

    async def stop(self) -> None:
        self.shutdown.request()
        async with asyncio.timeout(WAIT_SECONDS):
            await self.task


@asynccontextmanager
async def running(kind: WorkerKind, worker_settings: WorkerSettings) -> AsyncIterator[Running]:
    worker = Worker(kind, worker_settings)
    shutdown = Shutdown()
    run = Running(worker, shutdown, asyncio.create_task(worker.run(shutdown)))
    try:
        yield run
    finally:
        if not run.task.done():
            shutdown.request()
            shutdown.request()
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(run.task, return_exceptions=True)
