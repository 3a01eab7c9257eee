"""Motor against PyMongo's asyncio client, through feedmill.store, on one server: docs/adr/0002.

Client CPU is the whole process's (Motor works in threads). The drivers take turns, so that a busy machine burdens both
alike, and the medians of the turns are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from feedmill.settings import StoreSettings, read
from feedmill.store import Store, Write
from feedmill_local.database import Database

DRIVERS = ("motor", "pymongo")
DATABASE = "feedmill_bench"
COLLECTION = "comments"
LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


@dataclass(frozen=True)
class Figures:
    """Medians over the turns of one driver."""

    driver: str
    bulk_cpu_us: float
    """Client CPU for one bulk write."""
    bulk_cpu_us_per_document: float
    bulk_wall_ms: float
    single_cpu_us: float
    """Client CPU for one update sent alone, one after another."""
    single_wall_ms: float
    crowd_cpu_us: float
    """Client CPU for one update while many callers send one each."""
    crowd_p50_ms: float
    crowd_p99_ms: float


@dataclass(frozen=True)
class Cost:
    cpu_seconds: float
    wall_seconds: float


def main() -> None:
    arguments = parse_arguments()
    with server(arguments.uri) as uri:
        figures = asyncio.run(compare(uri, arguments))
    print_table(figures, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(entry) for entry in figures], indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", help=f"a MongoDB to use (its database {DATABASE} is dropped); default: a private one")
    parser.add_argument("--turns", type=int, default=9, help="turns of each driver (default: %(default)s)")
    parser.add_argument("--bulks", type=int, default=20, help="bulk writes in a turn (default: %(default)s)")
    parser.add_argument("--bulk-size", type=int, default=64, help="documents in a bulk write (default: %(default)s)")
    parser.add_argument("--singles", type=int, default=300, help="single updates in a turn (default: %(default)s)")
    parser.add_argument("--callers", type=int, default=64, help="callers in the crowd (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


@contextmanager
def server(uri: str | None) -> Iterator[str]:
    if uri:
        yield uri
        return
    with tempfile.TemporaryDirectory() as folder:
        database = Database.start(Path(folder))
        try:
            yield database.uri
        finally:
            database.stop()


async def compare(uri: str, arguments: argparse.Namespace) -> list[Figures]:
    stores = {name: Store.open(read(StoreSettings, uri=uri, database=DATABASE, driver=name)) for name in DRIVERS}
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in DRIVERS}
    for store in stores.values():
        await store.write(COLLECTION, verdicts(max(arguments.bulk_size, arguments.singles), upsert=True))
    for turn in range(arguments.turns):
        for name in DRIVERS if turn % 2 else reversed(DRIVERS):
            samples[name].append(await one_turn(stores[name], arguments))
        print(f"turn {turn + 1} of {arguments.turns}", flush=True)
    await stores[DRIVERS[0]]._client.drop_database(DATABASE)
    for store in stores.values():
        await store.close()
    return [Figures(name, **medians(samples[name])) for name in DRIVERS]


async def one_turn(store: Store, arguments: argparse.Namespace) -> dict[str, float]:
    bulk = await cost(lambda: bulks(store, arguments.bulks, arguments.bulk_size))
    single = await cost(lambda: singles(store, arguments.singles))
    waits: list[float] = []
    crowd = await cost(lambda: crowded(store, arguments.callers, arguments.singles // arguments.callers + 1, waits))
    centiles = statistics.quantiles(waits, n=100)
    return {
        "bulk_cpu_us": bulk.cpu_seconds / arguments.bulks * 1e6,
        "bulk_cpu_us_per_document": bulk.cpu_seconds / arguments.bulks / arguments.bulk_size * 1e6,
        "bulk_wall_ms": bulk.wall_seconds / arguments.bulks * 1e3,
        "single_cpu_us": single.cpu_seconds / arguments.singles * 1e6,
        "single_wall_ms": single.wall_seconds / arguments.singles * 1e3,
        "crowd_cpu_us": crowd.cpu_seconds / len(waits) * 1e6,
        "crowd_p50_ms": centiles[49] * 1e3,
        "crowd_p99_ms": centiles[98] * 1e3,
    }


async def cost(work: Callable[[], Awaitable[None]]) -> Cost:
    cpu, wall = time.process_time(), time.perf_counter()
    await work()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


async def bulks(store: Store, count: int, size: int) -> None:
    for _ in range(count):
        await store.write(COLLECTION, verdicts(size))


async def singles(store: Store, count: int) -> None:
    for write in verdicts(count):
        await store.write(COLLECTION, [write])


async def crowded(store: Store, callers: int, each: int, waits: list[float]) -> None:
    async def call(write: Write) -> None:
        for _ in range(each):
            started = time.perf_counter()
            await store.write(COLLECTION, [write])
            waits.append(time.perf_counter() - started)

    await asyncio.gather(*(call(write) for write in verdicts(callers)))


def verdicts(count: int, *, upsert: bool = False) -> list[Write]:
    """Writes such as the toxic worker's."""
    toxicity = {"labels": dict.fromkeys(LABELS, 0.0123), "model": "pkg://model@0123456789abcdef"}
    update = {"$set": {"isToxic": False, "toxicity": toxicity}}
    return [Write(f"comment-{number:06}", update, upsert) for number in range(count)]


def medians(samples: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(sample[name] for sample in samples), 2) for name in samples[0]}


def print_table(figures: list[Figures], arguments: argparse.Namespace) -> None:
    rows = {
        "bulk_cpu_us": f"client CPU, bulk write of {arguments.bulk_size} (µs)",
        "bulk_cpu_us_per_document": "client CPU, per document of it (µs)",
        "bulk_wall_ms": f"wall time, bulk write of {arguments.bulk_size} (ms)",
        "single_cpu_us": "client CPU, single update (µs)",
        "single_wall_ms": "wall time, single update (ms)",
        "crowd_cpu_us": f"client CPU, single update among {arguments.callers} callers (µs)",
        "crowd_p50_ms": f"wait, {arguments.callers} callers, median (ms)",
        "crowd_p99_ms": f"wait, {arguments.callers} callers, 99th centile (ms)",
    }
    print(
        f"\n{'median of ' + str(arguments.turns) + ' turns':50}" + "".join(f"{entry.driver:>12}" for entry in figures)
    )
    for name, title in rows.items():
        print(f"{title:50}" + "".join(f"{getattr(entry, name):12.2f}" for entry in figures))


if __name__ == "__main__":
    main()
