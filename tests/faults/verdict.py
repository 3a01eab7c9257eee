"""The verdict over one run: every claim, and what was seen."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faults import effects
from faults.arena import Arena
from faults.ledger import wait_for
from faults.watch import Holdings

RSS_GROWTH_MB = 150
"""Far above what caches of texts and a warm allocator take, far below what a leak of batches would."""
FILES_GROWTH = 20
THREADS_GROWTH = 12
"""Pools of threads (the event loop's, the driver's) grow to their size in the first minutes and stay there."""
CONNECTIONS_A_WORKER = 2
TASKS_WHEN_IDLE = 40
"""Of the event loop: the worker's own, its connections', the driver's."""
BUG_SIGNS = ('"exc_info"', "Traceback (most", "never retrieved", "was never awaited")


@dataclass
class Verdict:
    seed: int
    nemeses: list[str]
    seconds: float
    accepted: int = 0
    results: int = 0
    dead: int = 0
    duplicates: int = 0
    heal_seconds: dict[str, float] = field(default_factory=dict)
    holdings: dict[str, Any] = field(default_factory=dict)
    probe_samples: int = 0
    lost: int = 0
    wrong_effects: int = 0
    violations: list[str] = field(default_factory=list)
    """All of them, those two among them."""

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    def line(self) -> str:
        heal = max(self.heal_seconds.values(), default=0.0)
        return (
            f"seed {self.seed}: {self.accepted} accepted, {self.results} results, {self.dead} dead letters, "
            f"{self.duplicates} duplicates, healed in at most {heal:.1f} s, {self.probe_samples} probes, "
            f"{len(self.violations)} violations, {self.seconds:.0f} s"
        )


def judge(arena: Arena, clean: effects.Clean, nemeses: list[str], began: float) -> Verdict:
    """Wait until everything is settled, stop the load, and hold every claim against the books."""
    arena.until_settled()
    arena.watch.stop()
    arena.producer.stop()
    arena.collector.stop()
    account = arena.ledger.account()
    holdings, grown = _holdings(arena)
    wrong = effects.violations(arena, clean)
    return Verdict(
        seed=arena.seed,
        nemeses=nemeses,
        seconds=time.monotonic() - began,
        accepted=account.accepted,
        results=account.results,
        dead=account.dead,
        duplicates=account.duplicates,
        heal_seconds={name: round(seconds, 2) for name, seconds in arena.heal_seconds.items()},
        holdings=holdings,
        probe_samples=len(arena.watch.samples),
        lost=len(account.lost),
        wrong_effects=len(wrong),
        violations=[
            *account.violations(),
            *wrong,
            *arena.watch.violations(),
            *grown,
            *_connections(arena),
            *_tracebacks(arena),
        ],
    )


def _holdings(arena: Arena) -> tuple[dict[str, Any], list[str]]:
    told: dict[str, Any] = {}
    grown = []
    for worker, process in arena.processes.items():
        tasks = process.metric("feedmill_loop_tasks")
        if tasks > TASKS_WHEN_IDLE:
            grown.append(f"{worker}: {tasks:.0f} tasks on an idle event loop")
        pid = process.process.pid
        first_pid, first = arena.first_holdings[worker]
        now = Holdings.of(pid)
        told[worker] = {"first": asdict(first), "last": asdict(now), "tasks": tasks, "same_process": pid == first_pid}
        if pid != first_pid:
            continue
        grown += [
            f"{worker}: {what} grew from {before:.0f} to {after:.0f}"
            for what, before, after, limit in (
                ("resident memory in MB", first.rss_mb, now.rss_mb, RSS_GROWTH_MB),
                ("open files", first.files, now.files, FILES_GROWTH),
                ("threads", first.threads, now.threads, THREADS_GROWTH),
            )
            if after - before > limit
        ]
    return told, grown


def _connections(arena: Arena) -> list[str]:
    """Each worker has two; the broker takes a while to notice that a peer is gone."""
    expected = CONNECTIONS_A_WORKER * len(arena.workers)
    try:
        wait_for(lambda: arena.connections() == expected, 60, "connections", 1.0)
    except AssertionError:
        return [f"{arena.connections()} connections to the broker, expected {expected}"]
    return []


def _tracebacks(arena: Arena) -> list[str]:
    """Nothing that a fault leads to is a bug in the log."""
    told = []
    for worker, process in arena.processes.items():
        lines = process.log.read_text(errors="replace").splitlines()
        told += [
            f"{worker} logged a bug: {line[:400]} … {line[-1500:]}"
            for line in lines
            if any(sign in line for sign in BUG_SIGNS)
        ]
    return told[:5]
