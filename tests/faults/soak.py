"""Hours of load with a fault now and then: what workers hold and how they answer over time, and whether it drifts."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faults.arena import Arena
from faults.nemeses import NEMESES
from faults.watch import Holdings

MILD = ("broker_cut", "database_cut", "connections_closed", "broker_half_open", "database_half_open", "worker_stopped")
"""Faults that no worker process ends by: each is to be watched from its first minute to its last."""
SAMPLE_SECONDS = 5.0
WARM_UP_SHARE = 0.2
"""Left out of the comparison: caches fill, pools grow, the allocator settles."""


@dataclass
class Track:
    """One worker over time; one entry for each sample."""

    rss_mb: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    tasks: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


@dataclass
class Record:
    at: list[float] = field(default_factory=list)
    connections: list[float] = field(default_factory=list)
    tracks: dict[str, Track] = field(default_factory=dict)
    faults: list[tuple[float, str]] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "soak.json").write_text(json.dumps(asdict(self)), encoding="utf-8")
        plot(self, folder / "soak.png")


def soak(arena: Arena, seconds: float, fault_every_seconds: float) -> Record:
    """Watch the arena under load for ``seconds``; a mild fault each ``fault_every_seconds`` (0: none)."""
    record = Record(tracks={worker: Track() for worker in arena.workers})
    began = time.monotonic()
    next_fault = began + fault_every_seconds
    while (now := time.monotonic()) - began < seconds:
        _sample(arena, record, began)
        if fault_every_seconds and now >= next_fault:
            name = arena.random.choice(MILD)
            record.faults.append((now - began, name))
            print(f"{now - began:7.0f} s  {name}", flush=True)  # noqa: T201
            NEMESES[name](arena)
            arena.until_healed(name)
            next_fault = time.monotonic() + fault_every_seconds
        time.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - now)))
    return record


def _sample(arena: Arena, record: Record, began: float) -> None:
    now = time.monotonic()
    record.at.append(now - began)
    record.connections.append(arena.broker_proxy.connections)
    for worker, track in record.tracks.items():
        process = arena.processes[worker]
        held = Holdings.of(process.process.pid)
        track.rss_mb.append(held.rss_mb)
        track.files.append(held.files)
        track.threads.append(held.threads)
        track.tasks.append(process.metric("feedmill_loop_tasks"))
        window = [
            seconds * 1000
            for accepted, seconds in arena.ledger.latencies(worker)
            if accepted + seconds > now - 3 * SAMPLE_SECONDS
        ]
        track.per_second.append(len(window) / (3 * SAMPLE_SECONDS))
        track.p50_ms.append(statistics.median(window) if window else float("nan"))
        track.p99_ms.append(sorted(window)[int(len(window) * 0.99)] if window else float("nan"))


def drifts(record: Record) -> list[str]:
    """What is clearly more at the end than at the beginning, by the medians of the quarters after the warm-up."""
    told = []
    for worker, track in record.tracks.items():
        for name, values, factor, room in (
            ("resident memory in MB", track.rss_mb, 1.1, 30),
            ("open files", track.files, 1.0, 6),
            ("threads", track.threads, 1.0, 6),
            ("tasks", track.tasks, 1.0, 20),
            ("median latency in ms", track.p50_ms, 3.0, 200),
        ):
            first, last = _quarters(values)
            if last > first * factor + room:
                told.append(f"{worker}: {name} went from {first:.0f} to {last:.0f}")
    first, last = _quarters(record.connections)
    if last > first + 2:
        told.append(f"connections went from {first:.0f} to {last:.0f}")
    return told


def _quarters(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values[int(len(values) * WARM_UP_SHARE) :] if value == value]  # noqa: PLR0124 (NaN)
    quarter = max(1, len(known) // 4)
    return statistics.median(known[:quarter]), statistics.median(known[-quarter:])


def plot(record: Record, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows: tuple[tuple[str, str], ...] = (
        ("per_second", "answers per second"),
        ("p50_ms", "median latency, ms"),
        ("p99_ms", "99th percentile, ms"),
        ("rss_mb", "resident memory, MB"),
        ("files", "open files"),
        ("threads", "threads"),
        ("tasks", "tasks"),
    )
    figure, axes = pyplot.subplots(len(rows) + 1, 1, sharex=True, figsize=(10, 16), layout="constrained")
    minutes = [seconds / 60 for seconds in record.at]
    for axis, (name, title) in zip(axes, rows, strict=False):
        for worker, track in record.tracks.items():
            axis.plot(minutes, getattr(track, name), label=worker, linewidth=1)
        _furnish(axis, title, record)
    axes[-1].plot(minutes, record.connections, color="black", linewidth=1)
    _furnish(axes[-1], "connections to the broker", record)
    axes[-1].set_xlabel("minutes; dotted: a fault")
    axes[0].legend(loc="upper right")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _furnish(axis: Any, title: str, record: Record) -> None:
    axis.set_title(title, loc="left", fontsize=9)
    axis.set_ylim(bottom=0)
    for at, _ in record.faults:
        axis.axvline(at / 60, color="grey", linestyle=":", linewidth=0.7)
