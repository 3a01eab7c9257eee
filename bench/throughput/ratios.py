"""What the goals are about: one system's figure against another's of the same run."""

from __future__ import annotations

import statistics
from typing import Any

Entries = list[dict[str, Any]]
Rows = list[list[str]]

OURS, FIRST, LIMIT = "feedmill encode", "first system", "the model alone"
NOTHING, BARE = "feedmill, no model", "bare aiormq"
FASTER = {OURS: "4", f"{OURS}, onnx": "", f"{OURS}, onnx int8": "6"}
"""Our variants, and how many times the first system's throughput each is to reach."""
TOXIC_PAIRS = {
    "feedmill toxic, default model": ("first system, default model's size", "4"),
    "feedmill toxic, default model, onnx": ("first system, default model's size", ""),
    "feedmill toxic, default model, onnx int8": ("first system, default model's size", "6"),
    "feedmill toxic, BERT-base": ("first system, BERT-base", ""),
    "feedmill toxic, T5-small": ("first system, T5-small", ""),
}
SPEED, CPU = "messages_per_second", "cpu_ms_per_message"


def limit_of(system: str) -> str:
    """The name of the model alone that ``system`` runs."""
    return LIMIT + system.removeprefix(OURS)


def names(entries: Entries) -> list[str]:
    return list(dict.fromkeys(str(entry["system"]) for entry in entries))


def values(entries: Entries, name: str, field: str) -> list[float]:
    return [float(entry[field]) for entry in entries if entry["system"] == name and field in entry]


def median(entries: Entries, name: str, field: str) -> float | None:
    found = values(entries, name, field)
    return statistics.median(found) if found else None


def ratios(stages: dict[str, Entries]) -> Rows:
    """Rows ``[what, seen, goal]``, of what was measured."""
    rows = _encode(stages["burst"]) + _overhead(stages["overhead"]) + _latency(stages["latency"])
    held = {entry["system"]: float(entry["in_flight"]) for entry in stages["flood"]}
    rows += _row(f"operations in flight, {OURS} / {FIRST}", held.get(OURS), held.get(FIRST), "at least 10")
    return rows + _toxic(stages["toxic"]) + _starts(stages["starts"])


def _row(what: str, above: float | None, below: float | None, goal: str = "") -> Rows:
    return [[what, f"{above / below:.2f}", goal]] if above and below else []


def _at_least(goal: str) -> str:
    return f"at least {goal}" if goal else ""


def _encode(burst: Entries) -> Rows:
    def of(name: str, field: str) -> float | None:
        return median(burst, name, field)

    rows: Rows = []
    for own, goal in FASTER.items():
        limit = limit_of(own)
        rows += _row(f"{own} / {FIRST}, messages/s", of(own, SPEED), of(FIRST, SPEED), _at_least(goal))
        rows += _row(f"{own} / {limit}, a second", of(own, SPEED), of(limit, "texts_per_second"), "at least 0.9")
        rows += _row(f"CPU a message, {own} / {limit}", of(own, CPU), of(limit, "cpu_ms_per_text"))
        for what, field, most in (
            ("CPU a message", CPU, ""),
            ("memory, idle", "idle_mb", "at most 0.5"),
            ("memory, peak", "peak_mb", "at most 0.5"),
            ("cold start", "cold_start_seconds", ""),
        ):
            rows += _row(f"{what}, {own} / {FIRST}", of(own, field), of(FIRST, field), most)
    for name in names(burst):
        if not name.startswith((OURS, LIMIT)) and name != FIRST:
            rows += _row(f"{OURS} / {name}, messages/s", of(OURS, SPEED), of(name, SPEED), "above 1")
            rows += _row(f"CPU a message, {OURS} / {name}", of(OURS, CPU), of(name, CPU), "below 1")
    return rows


def _overhead(entries: Entries) -> Rows:
    rows: Rows = []
    for name in names(entries):
        goal = "at most 1.25" if name == BARE else "below 1"
        if name != NOTHING:
            own, other = median(entries, NOTHING, CPU), median(entries, name, CPU)
            rows += _row(f"CPU a message, {NOTHING} / {name}", own, other, goal)
    return rows


def _latency(entries: Entries) -> Rows:
    rows: Rows = []
    for load in dict.fromkeys(entry["load"] for entry in entries):
        at = {entry["system"]: entry["p99_ms"] for entry in entries if entry["load"] == load}
        goal = "below 0.1" if load == 0.8 else ""
        rows += _row(f"p99 at {load:.0%} of our capacity, {OURS} / {FIRST}", at.get(OURS), at.get(FIRST), goal)
    return rows


def _toxic(entries: Entries) -> Rows:
    rows: Rows = []
    for own, (first, goal) in TOXIC_PAIRS.items():
        speeds = median(entries, own, SPEED), median(entries, first, SPEED)
        rows += _row(f"{own} / {first}, messages/s", *speeds, _at_least(goal))
        rows += _row(f"CPU a message, {own} / {first}", median(entries, own, CPU), median(entries, first, CPU))
        peaks = median(entries, own, "peak_mb"), median(entries, first, "peak_mb")
        rows += _row(f"memory, peak, {own} / {first}", *peaks)
    return rows


def _starts(entries: Entries) -> Rows:
    """No ratio: seconds."""
    found = [(name, median(entries, name, "ready_seconds")) for name in names(entries)]
    return [
        [f"ready, {name}, seconds from exec", f"{seconds:.2f}", f"below {1 if 'onnx' in name else 3}"]
        for name, seconds in found
        if seconds is not None
    ]
