"""Figures into Markdown tables, ratios and plots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Entries = list[dict[str, Any]]

BEGIN, END = "<!-- throughput: written by make bench -->", "<!-- end of throughput -->"
OURS, FIRST, LIMIT = "feedmill encode", "first system", "the model alone"
NOTHING, BARE = "feedmill, no model", "bare aiormq"


def read(path: Path) -> Entries:
    """The entries of a stage; none where it has not been run."""
    if not path.exists():
        return []
    entries: Entries = json.loads(path.read_text(encoding="utf-8"))
    return entries


def write(out: Path, machine: str) -> str:
    """Tables and plots from the stages' figures in ``out``; answers the Markdown."""
    stages = {name: read(out / f"{name}.json") for name in ("burst", "overhead", "latency", "flood", "toxic")}
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
    parts += ["### Ratios", _table(["ratio", "seen", "goal"], _ratios(stages))]
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


def _names(entries: Entries) -> list[str]:
    return list(dict.fromkeys(str(entry["system"]) for entry in entries))


def _values(entries: Entries, name: str, field: str) -> list[float]:
    return [float(entry[field]) for entry in entries if entry["system"] == name and field in entry]


def median(entries: Entries, name: str, field: str) -> float | None:
    found = _values(entries, name, field)
    return statistics.median(found) if found else None


def _spread(entries: Entries, name: str, field: str, digits: int) -> str:
    found = _values(entries, name, field)
    middle = f"{statistics.median(found):.{digits}f}"
    return f"{middle} ({min(found):.{digits}f} to {max(found):.{digits}f})" if len(found) > 1 else middle


def _bursts(entries: Entries) -> str:
    head = ["system", "messages", "messages/s", "CPU ms/message", "burst p50 s", "burst p99 s", "cold start s"]
    head += ["idle MB", "peak MB"]
    rows = []
    for name in _names(entries):
        if name == LIMIT:
            continue
        if not _values(entries, name, "messages"):
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
    texts = _spread(entries, LIMIT, "texts_per_second", 1)
    cpu = _spread(entries, LIMIT, "cpu_ms_per_text", 2)
    peak, flop = (median(entries, LIMIT, field) or 0 for field in ("gemm_gflops", "gflop_per_text"))
    bound = peak / flop if flop else 0
    return (
        f"The model alone, perfectly batched: {texts} texts/s, {cpu} ms of CPU a text. Matrix products of its own shape"
        f" run at {peak:.0f} GFLOP/s on all lanes, and a text takes {flop:.2f} GFLOP of them: {bound:.0f} texts/s if"
        " there were nothing else."
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


def _ratios(stages: dict[str, Entries]) -> list[list[str]]:
    burst, overhead, latency, flood = (stages[name] for name in ("burst", "overhead", "latency", "flood"))

    def ratio(what: str, above: float | None, below: float | None, goal: str = "") -> list[list[str]]:
        return [[what, f"{above / below:.2f}", goal]] if above and below else []

    def of(entries: Entries, name: str, field: str) -> float | None:
        return median(entries, name, field)

    speed, cpu = "messages_per_second", "cpu_ms_per_message"
    rows = ratio(f"{OURS} / {FIRST}, messages/s", of(burst, OURS, speed), of(burst, FIRST, speed), "4")
    for name in _names(burst):
        if name not in {OURS, FIRST, LIMIT}:
            rows += ratio(f"{OURS} / {name}, messages/s", of(burst, OURS, speed), of(burst, name, speed), "1")
            rows += ratio(f"CPU a message, {OURS} / {name}", of(burst, OURS, cpu), of(burst, name, cpu), "1")
    rows += ratio(f"{OURS} / {LIMIT}", of(burst, OURS, speed), of(burst, LIMIT, "texts_per_second"), "0.9")
    own = of(burst, LIMIT, "cpu_ms_per_text")
    rows += ratio(f"CPU a message, {LIMIT} / {OURS}", own, of(burst, OURS, cpu))
    rows += ratio(f"peak memory, {OURS} / {FIRST}", of(burst, OURS, "peak_mb"), of(burst, FIRST, "peak_mb"), "0.5")
    start = "cold_start_seconds"
    rows += ratio(f"cold start, {OURS} / {FIRST}", of(burst, OURS, start), of(burst, FIRST, start))
    for name in _names(overhead):
        if name != NOTHING:
            goal = "1.25" if name == BARE else "1"
            rows += ratio(
                f"CPU a message, {NOTHING} / {name}", of(overhead, NOTHING, cpu), of(overhead, name, cpu), goal
            )
    for load in dict.fromkeys(entry["load"] for entry in latency):
        at = {entry["system"]: entry["p99_ms"] for entry in latency if entry["load"] == load}
        goal = "0.1" if load == 0.8 else ""
        rows += ratio(f"p99 at {load:.0%} of our capacity, {OURS} / {FIRST}", at.get(OURS), at.get(FIRST), goal)
    held = {entry["system"]: float(entry["in_flight"]) for entry in flood}
    rows += ratio(f"operations in flight, {OURS} / {FIRST}", held.get(OURS), held.get(FIRST), "10")
    return rows


def plots(out: Path, stages: dict[str, Entries]) -> list[Path]:
    """PNG files of what was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made = []

    def save(name: str) -> None:
        pyplot.tight_layout()
        pyplot.savefig(out / f"{name}.png", dpi=110)
        pyplot.close()
        made.append(out / f"{name}.png")

    for stage in ("burst", "overhead", "toxic"):
        names = [name for name in _names(stages[stage]) if _values(stages[stage], name, "messages")]
        if not names:
            continue
        _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 0.45 * len(names) + 1.2), sharey=True)
        for axis, field, title in (
            (left, "messages_per_second", "messages/s (more is better)"),
            (right, "cpu_ms_per_message", "CPU ms a message (less is better)"),
        ):
            middles = [median(stages[stage], name, field) or 0.0 for name in names]
            values = [_values(stages[stage], name, field) for name in names]
            spread = [
                [middle - min(found) for middle, found in zip(middles, values, strict=True)],
                [max(found) - middle for middle, found in zip(middles, values, strict=True)],
            ]
            colours = ["#1f77b4" if "feedmill" in name else "#b0b0b0" for name in names]
            axis.barh(names, middles, xerr=spread, color=colours)
            axis.set_xlabel(title)
        left.invert_yaxis()
        save(stage)
    if stages["latency"]:
        _, axis = pyplot.subplots(figsize=(7, 4))
        for name, colour in zip(_names(stages["latency"]), ("#1f77b4", "#d62728"), strict=False):
            rows = [entry for entry in stages["latency"] if entry["system"] == name]
            for field, line in (("p50_ms", ":"), ("p95_ms", "--"), ("p99_ms", "-")):
                offered = [entry["offered_per_second"] for entry in rows]
                label = f"{name}, {field[:3]}"
                axis.plot(offered, [entry[field] for entry in rows], line, color=colour, marker="o", label=label)
        axis.set_yscale("log")
        axis.set_xlabel("messages offered a second")
        axis.set_ylabel("ms from due to answered")
        axis.legend()
        save("latency")
    return made
