"""Runs under faults: a short mix in every test run, the rest with FAULTS=full (`make faults`)."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faults import effects
from faults.arena import Arena
from faults.nemeses import NEMESES
from faults.summary import Row, Summary
from faults.verdict import Verdict, judge
from feedmill_local.database import Database
from feedmill_local.rabbitmq import RabbitNode

SEED = int(os.environ.get("FAULTS_SEED", "20261124"))
REPORTS = Path(__file__).parents[2] / ".cache" / "faults"

LOAD_BEFORE = 60
LOAD_BETWEEN = 30
"""Messages that are accepted before the first fault, and after each."""

NewArena = Callable[..., Any]

VERDICT = pytest.StashKey[Verdict]()
SUMMARY = pytest.StashKey[Summary]()
WORTH_A_ROW = 5.0
"""Seconds above which a test without a verdict is one that failed on its way to it, and no test of the harness."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("FAULTS") == "full":
        config.stash[SUMMARY] = Summary(SEED, int(os.environ.get("FAULTS_RUN", "1")))
        return
    skipped = [item for item in items if item.get_closest_marker("full_faults")]
    config.hook.pytest_deselected(items=skipped)
    items[:] = [item for item in items if item not in skipped]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Say of each test that ends what came of it, and how many are left."""
    report: pytest.TestReport = (yield).get_result()
    summary = item.config.stash.get(SUMMARY, None)
    if summary is None or (report.when != "call" and not report.failed):
        return
    verdict = item.stash.get(VERDICT, None)
    if verdict is None and not report.failed and report.duration < WORTH_A_ROW:
        return
    error = " ".join(str(call.excinfo.value).split())[:200].replace("|", "/") if call.excinfo else ""
    name = item.callspec.id if item.name.startswith("test_one_nemesis_alone[") else item.name
    row = Row(name, report.passed, report.duration, verdict, error)
    summary.rows.append(row)
    minutes = (time.time() - summary.began) / 60
    place = f"{minutes:6.1f} min, {len(summary.rows)} of at most {item.session.testscollected}"
    reporter: Any = item.config.pluginmanager.get_plugin("terminalreporter")
    reporter.write_line(f"\n{place}: {row.line()}")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    summary = config.stash.get(SUMMARY, None)
    if summary is not None and summary.rows:
        path = summary.save(REPORTS)
        terminalreporter.section(f"{path} and .json")
        terminalreporter.write_line(summary.markdown())


@pytest.fixture
def new_arena(
    rabbit_node: RabbitNode, rabbit_url: str, database_server: Database, mongo_uri: str, tmp_path: Path
) -> Any:
    """Makes arenas on the run's own servers: ``with new_arena(seed=1, ...) as arena``."""

    @contextmanager
    def make(**given: Any) -> Iterator[Arena]:
        name = f"faults_{uuid.uuid4().hex[:12]}"
        given.setdefault("seed", SEED)
        arena = Arena(rabbit_node, rabbit_url, database_server, name, tmp_path, **given)
        with arena:
            try:
                yield arena
            finally:
                arena.client.drop_database(name)

    return make


@pytest.fixture
def run_under(new_arena: NewArena, request: pytest.FixtureRequest) -> Callable[..., Verdict]:
    """Run load under these nemeses, one after another; the verdict, saved and free of violations."""

    def run(*names: str, seconds: float = 0.0, **given: Any) -> Verdict:
        began = time.monotonic()
        done: list[str] = []
        with new_arena(has_clock="clock_jumps" in names, **given) as arena:
            clean = effects.clean_run(arena)
            arena.start_load()
            arena.until_accepted(LOAD_BEFORE)
            for name in names:
                print(f"{time.monotonic() - began:6.1f} s  {name}", flush=True)  # noqa: T201
                NEMESES[name](arena)
                done.append(name)
                healed = arena.until_healed(name)
                print(f"{time.monotonic() - began:6.1f} s  healed after {healed:.1f} s", flush=True)  # noqa: T201
                arena.until_accepted(LOAD_BETWEEN)
            verdict = judge(arena, clean, done, began)
            report = REPORTS / f"{request.node.name.translate({ord('['): '-', ord(']'): ''})}.json"
            verdict.save(report)
            request.node.stash[VERDICT] = verdict
            for worker, process in arena.processes.items():
                shutil.copy(process.log, report.with_suffix(f".{worker}.log"))
        print(verdict.line(), flush=True)  # noqa: T201
        assert not verdict.violations, "\n".join(verdict.violations[:20])
        return verdict

    return run
