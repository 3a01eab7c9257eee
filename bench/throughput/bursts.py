"""A burst: all messages at once. Throughput, cost a message, memory, and how long the last ones waited."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from processes import cpu_seconds, peak_mb, resident_mb
from running import Servers, running
from systems import Post, System


@dataclass(frozen=True)
class Burst:
    """What one system did with one burst. Times are from publishing to the answer."""

    system: str
    messages: int
    answered: int
    """Less than ``messages`` where the time was over before."""
    cold_start_seconds: float
    messages_per_second: float
    cpu_ms_per_message: float
    p50_seconds: float
    p99_seconds: float
    idle_mb: float
    peak_mb: float


def burst(system: System, posts: Sequence[Post], servers: Servers, seconds: float = 300.0) -> Burst:
    """Start ``system``, send it one message and then the rest at once; look for ``seconds`` at most."""
    with running(system, posts, servers) as it:
        rest = posts[1:]
        idle, cpu = resident_mb(it.process.pid), cpu_seconds(it.process.pid)
        began = time.monotonic()
        it.publish(rest)
        times = [answered - began for answered in it.answers(len(rest), seconds)]
        cpu = cpu_seconds(it.process.pid) - cpu
        peak = peak_mb(it.process.pid)
        if not times:
            raise RuntimeError(f"{system.name}: no answer within {seconds:g} s")
        return Burst(
            system.name, len(rest), len(times), it.cold_seconds, len(times) / times[-1], 1000 * cpu / len(times),
            times[len(times) // 2], times[int(len(times) * 0.99)], idle, peak,
        )  # fmt: skip


@dataclass(frozen=True)
class Flood:
    """A burst too large to be answered soon: does memory stay flat?"""

    system: str
    messages: int
    answered: int
    seconds: float
    mb_early: float
    """Resident in the first fifth of the time, and in the last: the most."""
    mb_late: float
    in_flight: int
    """The most messages that it held unacknowledged."""


def flood(system: System, posts: Sequence[Post], servers: Servers, seconds: float) -> Flood:
    """All ``posts`` at once; look for ``seconds``, or until all are answered."""
    with running(system, posts, servers) as it:
        rest = posts[1:]
        sizes: list[float] = []
        held: list[int] = []

        def look(answered: int) -> None:
            sizes.append(resident_mb(it.process.pid))
            held.append(len(rest) - answered - it.waiting())

        began = time.monotonic()
        it.publish(rest)
        answered = len(it.answers(len(rest), seconds, look))
        spent = time.monotonic() - began
        tenth = max(1, len(sizes) // 10)
        early, late = max(sizes[: 2 * tenth]), max(sizes[-2 * tenth :])
        return Flood(system.name, len(rest), answered, spent, early, late, max(held))
