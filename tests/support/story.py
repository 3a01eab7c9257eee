"""A rollout on the emulated cluster with real workers, look after look, as a person would follow it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from feedmill_rollouts.cluster import Cluster
from feedmill_rollouts.reconcile import Reconciler, utc_now
from support.kube import NAMESPACE, World
from support.node import Node

WAIT_SECONDS = 300.0


@dataclass
class Story:
    """The operator, look after look, and what it came through."""

    it: World
    name: str
    machine: Node
    on_phase: Callable[[], None]
    """Called in a thread at each change of the phase."""
    phases: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """What a person would have seen, with the seconds since the first look."""
    progress: list[dict[str, Any]] = field(default_factory=list)
    _started: float = 0.0
    _last_line: str = ""

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        async with aiohttp.ClientSession() as http, aiohttp.ClientSession() as pods:
            reconciler = Reconciler(Cluster(http, self.it.server, NAMESPACE), pods, self.it.windows)
            while True:
                await asyncio.to_thread(self.machine.control)
                if self.it.objects("rollouts"):
                    await self._look(reconciler)
                if condition():
                    return
                assert asyncio.get_running_loop().time() < deadline, "\n".join(self.lines)
                await asyncio.sleep(0.4)

    async def _look(self, reconciler: Reconciler) -> None:
        await reconciler.tick(self.name, utc_now())
        # kmock asks its filters about every request so far, at each request.
        self.it.kmock._requests.clear()
        status = self.it.status
        phase, mode, message = status.get("phase"), self.it.routing["mode"], status.get("message", "")
        line = f"{phase:<12} {mode:<7} {message}"
        if line != self._last_line:
            self._last_line = line
            self._started = self._started or time.monotonic()
            self.lines.append(f"{time.monotonic() - self._started:5.0f} s  {line}")
        if phase != (self.phases or [""])[-1]:
            self.phases.append(phase)
            await asyncio.to_thread(self.on_phase)
        if status.get("backfill") and status["backfill"] not in self.progress:
            self.progress.append(status["backfill"])

    async def until_phase(self, phase: str) -> None:
        await self.until(lambda: self.it.status.get("phase") == phase)

    def say(self, verb: str) -> None:
        annotations = {f"feedmill.dev/{verb}": self.it.status["rolloutId"]}
        self.it.change("rollouts", self.name, {"metadata": {"annotations": annotations}})
