"""The stages' figures as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from ratios import median, names, values

matplotlib.use("Agg")
from matplotlib import pyplot

Entries = list[dict[str, Any]]

OURS_COLOUR, OTHERS_COLOUR = "#1f77b4", "#b0b0b0"


def plots(out: Path, stages: dict[str, Entries]) -> list[Path]:
    """One file for each stage that was measured; answers their paths."""
    made = []
    for stage in ("burst", "overhead", "toxic"):
        if any("messages" in entry for entry in stages[stage]):
            _bars(stages[stage])
            made.append(_save(out / f"{stage}.png"))
    if stages["latency"]:
        _latencies(stages["latency"])
        made.append(_save(out / "latency.png"))
    return made


def _save(path: Path) -> Path:
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=110)
    pyplot.close()
    return path


def _bars(entries: Entries) -> None:
    """Throughput and cost of each system: the median, and a line from the least to the most."""
    found = [name for name in names(entries) if values(entries, name, "messages")]
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 0.45 * len(found) + 1.2), sharey=True)
    for axis, field, title in (
        (left, "messages_per_second", "messages/s (more is better)"),
        (right, "cpu_ms_per_message", "CPU ms a message (less is better)"),
    ):
        middles = [median(entries, name, field) or 0.0 for name in found]
        seen = [values(entries, name, field) for name in found]
        spread = [
            [middle - min(each) for middle, each in zip(middles, seen, strict=True)],
            [max(each) - middle for middle, each in zip(middles, seen, strict=True)],
        ]
        colours = [OURS_COLOUR if name.startswith("feedmill") else OTHERS_COLOUR for name in found]
        axis.barh(found, middles, xerr=spread, color=colours)
        axis.set_xlabel(title)
    left.invert_yaxis()


def _latencies(entries: Entries) -> None:
    _, axis = pyplot.subplots(figsize=(7, 4))
    for name, colour in zip(names(entries), (OURS_COLOUR, "#d62728"), strict=False):
        rows = [entry for entry in entries if entry["system"] == name]
        for field, line in (("p50_ms", ":"), ("p95_ms", "--"), ("p99_ms", "-")):
            offered = [entry["offered_per_second"] for entry in rows]
            label = f"{name}, {field[:3]}"
            axis.plot(offered, [entry[field] for entry in rows], line, color=colour, marker="o", label=label)
    axis.set_yscale("log")
    axis.set_xlabel("messages offered a second")
    axis.set_ylabel("ms from due to answered")
    axis.legend()
