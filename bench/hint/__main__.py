"""``make bench-hint``: the hint worker's index at growing sizes, beside numpy and the first system's way.

Each size can be run apart (``--sizes 1000000 --json FILE``); the results of several runs in one file are kept, and
``--plot`` draws what the file holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from data import clustered, minilm
from database import measure_following
from measure import measure, said
from restart import measure_restart
from throughput import measure_throughput

QUICK = [2_000, 25_000]
SIZES = [10_000, 100_000, 1_000_000]


def main() -> None:
    options = parse_arguments()
    results = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    sizes = options.sizes if options.sizes is not None else QUICK if options.quick else SIZES
    for size in sizes:
        with said(f"{size} clustered vectors"):
            keep(options.json, results, f"clustered {size}", measure(clustered(size), options.queries))
    if options.minilm:
        with said(f"{options.minilm} posts through MiniLM"):
            keep(options.json, results, f"minilm {options.minilm}", measure(minilm(options.minilm), options.queries))
    if options.following:
        with said(f"following a database of {options.following} posts"):
            keep(options.json, results, f"following {options.following}", measure_following(options.following))
    if options.throughput:
        with said(f"hints through the queue, {options.throughput} posts"):
            figures = measure_throughput(options.throughput, options.messages, options.first_messages)
            keep(options.json, results, f"throughput {options.throughput}", figures)
    if options.restart:
        with said(f"restart with {options.restart} vectors"):
            figures = measure_restart(options.restart, options.fill, options.database, made=options.made_snapshot)
            if figures:
                keep(options.json, results, f"restart {options.restart}", figures)
    if options.plot:
        from plot import draw

        draw(results, options.plot)
    print(table(results))


def keep(file: Path, results: dict[str, Any], name: str, figures: dict[str, Any]) -> None:
    results[name] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", **rounded(figures)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(results: dict[str, Any]) -> str:
    lines = []
    for name, figures in results.items():
        lines.append(name)
        lines += [f"  {key:32} {value}" for key, value in figures.items()]
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/hint", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds, to see that it runs")
    parser.add_argument("--sizes", type=int, nargs="*", help=f"clustered vectors (default: {SIZES})")
    parser.add_argument("--minilm", type=int, default=0, help="also this many real embeddings of generated posts")
    parser.add_argument(
        "--following", type=int, default=0, help="also a database of so many posts: load, follow, restart"
    )
    parser.add_argument("--throughput", type=int, default=0, help="also hints through a broker, on so many posts")
    parser.add_argument("--messages", type=int, default=3000, help="hints of that (default 3000)")
    parser.add_argument("--first-messages", type=int, default=3, help="hints of that for the first system (default 3)")
    parser.add_argument("--restart", type=int, default=0, help="also a worker's restart on so many vectors, in 2 GiB")
    parser.add_argument("--fill", type=float, default=360.0, help="seconds to fill its database at most (default 360)")
    parser.add_argument("--made-snapshot", action="store_true", help="for that: only from a snapshot, made here")
    parser.add_argument("--database", type=Path, help="folder of that database: kept, and filled on the next time")
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--json", type=Path, default=Path(".cache/bench-hint.json"))
    parser.add_argument("--plot", type=Path, help="draw the growth to this PNG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
