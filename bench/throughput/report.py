"""Figures into Markdown tables, ratios and plots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plots import plots
from ratios import FASTER, LIMIT, limit_of, median, names, ratios, values

Entries = list[dict[str, Any]]

BEGIN, END = "<!-- throughput: written by make bench -->", "<!-- end of throughput -->"
STAGES = ("burst", "overhead", "latency", "flood", "toxic", "starts")
LIMIT_NAMES = [limit_of(name) for name in FASTER]


def read(path: Path) -> Entries:
    """The entries of a stage; none where it has not been run."""
    if not path.exists():
        return []
    entries: Entries = json.loads(path.read_text(encoding="utf-8"))
    return entries


def write(out: Path, machine: str) -> str:
    """Tables and plots from the stages' figures in ``out``; answers the Markdown."""
    stages = {name: read(out / f"{name}.json") for name in STAGES}
    parts = [f"Machine: {machine}."]
    if stages["burst"]:
        parts += ["### Encode, end to end", _bursts(stages["burst"]), _limit(stages["burst"])]
    if stages["overhead"]:
        parts += ["### Without a model and a store", _bursts(stages["overhead"])]
    if stages["latency"]:
        parts += ["### Steady loads", _steady(stages["latency"])]
    if stages["flood"]:
        parts += ["### A burst of thousands", _floods(stages["flood"])]
    if stages["toxic"]:
        parts += ["### Toxic", _bursts(stages["toxic"])]
    if stages["starts"]:
        parts += ["### From exec to ready", _starts(stages["starts"])]
    parts += ["### Ratios", _table(["ratio", "seen", "goal"], ratios(stages))]
    parts += [f"![{path.stem}]({path.parent.name}/{path.name})" for path in plots(out, stages)]
    text = "\n\n".join(parts) + "\n"
    (out / "throughput.md").write_text(text, encoding="utf-8")
    return text


def into(path: Path, text: str) -> None:
    """Replace what stands between the marks of ``path``."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{path}: expected {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _spread(entries: Entries, name: str, field: str, digits: int) -> str:
    found = values(entries, name, field)
    middle = f"{statistics.median(found):.{digits}f}"
    return f"{middle} ({min(found):.{digits}f} to {max(found):.{digits}f})" if len(found) > 1 else middle


def _bursts(entries: Entries) -> str:
    head = ["system", "messages", "messages/s", "CPU ms/message", "burst p50 s", "burst p99 s", "cold start s"]
    head += ["idle MB", "peak MB"]
    rows = []
    for name in names(entries):
        if name in LIMIT_NAMES:
            continue
        if not values(entries, name, "messages"):
            failed = next(entry["failed"] for entry in entries if entry["system"] == name)
            rows.append([name, f"did not run: {failed}", *[""] * (len(head) - 2)])
            continue
        cells = [name, f"{median(entries, name, 'messages'):.0f}", _spread(entries, name, "messages_per_second", 1)]
        cells.append(_spread(entries, name, "cpu_ms_per_message", 2))
        times = ("p50_seconds", "p99_seconds", "cold_start_seconds")
        cells += [f"{median(entries, name, field):.2f}" for field in times]
        rows.append([*cells, *(f"{median(entries, name, field):.0f}" for field in ("idle_mb", "peak_mb"))])
    return _table(head, rows)


def _limit(entries: Entries) -> str:
    rows = [
        [name, _spread(entries, name, "texts_per_second", 1), _spread(entries, name, "cpu_ms_per_text", 2)]
        for name in LIMIT_NAMES
        if values(entries, name, "texts_per_second")
    ]
    peak, flop = (median(entries, LIMIT, field) or 0 for field in ("gemm_gflops", "gflop_per_text"))
    bound = peak / flop if flop else 0
    return (
        "The same models alone, perfectly batched, right behind their worker in each round:\n\n"
        + _table(["", "texts/s", "CPU ms/text"], rows)
        + f"\n\nMatrix products of the model's shape run at {peak:.0f} GFLOP/s in torch, on all lanes, and a text takes"
        f" {flop:.2f} GFLOP of them: {bound:.0f} texts/s if there were nothing else."
    )


def _steady(entries: Entries) -> str:
    head = ["system", "load", "offered/s", "answered", "p50 ms", "p95 ms", "p99 ms", "in flight", "queue at the end"]
    head += ["MB", "cores"]
    rows = [
        [
            entry["system"],
            f"{entry['load']:.0%}",
            f"{entry['offered_per_second']:.1f}",
            f"{entry['answered']} of {entry['messages']}",
            *(f"{entry[field]:.0f}" for field in ("p50_ms", "p95_ms", "p99_ms", "in_flight", "queue_at_end", "rss_mb")),
            f"{entry['cpu_share']:.2f}",
        ]
        for entry in entries
    ]
    return _table(head, rows)


def _floods(entries: Entries) -> str:
    head = ["system", "messages", "answered", "within s", "MB early", "MB late", "in flight"]
    rows = [
        [
            entry["system"],
            str(entry["messages"]),
            str(entry["answered"]),
            *(f"{entry[field]:.0f}" for field in ("seconds", "mb_early", "mb_late", "in_flight")),
        ]
        for entry in entries
    ]
    return _table(head, rows)


def _starts(entries: Entries) -> str:
    fields = (("listening_seconds", 2), ("ready_seconds", 2), ("cpu_seconds", 2), ("resident_mb", 0))
    rows = [[name, *(_spread(entries, name, field, digits) for field, digits in fields)] for name in names(entries)]
    return _table(["worker", "probes answer after s", "ready after s", "CPU s", "resident MB"], rows)
