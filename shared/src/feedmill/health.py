"""What a worker knows of its own health: written from the event loop, read from the probes' thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STARTING = "starting"
"""The problem of a part of which nothing is known yet."""

HEARTBEAT_STALE_SECONDS = 30.0
"""A loop that has not run a trivial task for this long is stuck. Far above any pause of a healthy loop."""


class Health:
    """Readiness as named parts, each fine or with a problem in words; liveness as a heartbeat and running batches."""

    def __init__(self, parts: tuple[str, ...], stuck_after_seconds: float) -> None:
        self._lock = threading.Lock()
        self._problems: dict[str, str | None] = dict.fromkeys(parts, STARTING)
        self._stuck_after_seconds = stuck_after_seconds
        self._last_beat = time.monotonic()
        self._running: dict[int, tuple[str, float]] = {}
        self._next_key = 0

    def set(self, part: str, problem: str | None) -> None:
        """Note that ``part`` is fine (None) or what is wrong with it."""
        with self._lock:
            self._problems[part] = problem

    def beat(self) -> None:
        """The event loop runs."""
        self._last_beat = time.monotonic()

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        """Note that a batch is in the step ``what`` for as long as the block lasts."""
        with self._lock:
            key = self._next_key
            self._next_key += 1
            self._running[key] = (what, time.monotonic())
        try:
            yield
        finally:
            with self._lock:
                del self._running[key]

    def readiness(self) -> dict[str, str | None]:
        """Every part with its problem, or None where it is fine."""
        with self._lock:
            return dict(self._problems)

    def is_ready(self) -> bool:
        return all(problem is None for problem in self.readiness().values())

    def liveness(self) -> list[str]:
        """What only a restart can cure; empty while the process is alive. Says nothing of dependencies."""
        now = time.monotonic()
        problems = []
        if (silence := now - self._last_beat) > HEARTBEAT_STALE_SECONDS:
            problems.append(f"event loop: no heartbeat for {silence:.0f} s")
        with self._lock:
            running = list(self._running.values())
        problems += [
            f"{what}: one batch for {now - since:.0f} s, expected less than {self._stuck_after_seconds:.0f}"
            for what, since in running
            if now - since > self._stuck_after_seconds
        ]
        return problems
