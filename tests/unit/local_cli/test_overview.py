"""Whether all is well, and how it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from feedmill_local.figures import Figures
from feedmill_local.overview import DataState, Overview, QueueState, ServerState, WorkerState
from feedmill_local.probing import Readiness
from feedmill_local.status_table import render

QUEUES = (
    QueueState("toxic-detect-queue", "input", 4, 1),
    QueueState("result-detect-queue", "result", None),
    QueueState("toxic-detect-queue.dead", "dead", 2),
    QueueState("toxic-detect-queue.retry.1s", "retry", 3),
    QueueState("toxic-detect-queue.retry.5s", "retry", 5),
)
READY = WorkerState(
    "toxic",
    pid=17,
    alive=True,
    live=True,
    readiness=Readiness(True),
    figures=Figures(received=12, answered=10, failed=1, in_flight=2, p50_seconds=0.0123, p95_seconds=1.5),
    queues=QUEUES,
)
ELSEWHERE = WorkerState("toxic", queues=QUEUES)


def overview(*workers: WorkerState, taken: float = 100.0, **changes: Any) -> Overview:
    broker, database = ServerState("amqp://broker:5672/"), ServerState("db:27017/feedmill")
    return replace(Overview(broker, database, DataState("minilm", {"posts": 3}), workers, taken), **changes)


def shown(what: Overview) -> str:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(render(what))
    return capture.get()


def test_all_is_well() -> None:
    assert overview(READY).problems() == []
    assert "all is well" in shown(overview(READY))


@pytest.mark.parametrize(
    ("worker", "problem"),
    [
        (replace(READY, alive=False), "toxic: pid 17 has ended"),
        (replace(READY, live=False), "toxic: not live: see /livez"),
        (
            replace(READY, readiness=Readiness(False, {"database": "no answer"})),
            "toxic: not ready: database (no answer)",
        ),
        (
            replace(ELSEWHERE, queues=(QueueState("toxic-detect-queue", "input", 4, 0),)),
            "toxic: nobody consumes toxic-detect-queue",
        ),
        (
            replace(ELSEWHERE, queues=(QueueState("toxic-detect-queue", "input", None),)),
            "toxic: nobody consumes toxic-detect-queue",
        ),
    ],
)
def test_what_is_wrong_with_a_worker(worker: WorkerState, problem: str) -> None:
    assert overview(worker).problems() == [problem]
    assert problem in shown(overview(worker))


def test_a_worker_elsewhere_is_judged_by_its_consumer() -> None:
    assert overview(ELSEWHERE).problems() == []
    assert "runs elsewhere" in shown(overview(ELSEWHERE))


def test_a_broker_that_is_away_is_one_problem_not_one_for_each_worker() -> None:
    away = overview(WorkerState("toxic"), WorkerState("hint"), broker=ServerState("amqp://broker:5672/", "refused"))
    assert away.problems() == ["RabbitMQ amqp://broker:5672/: refused"]
    assert "amqp://broker:5672/ can't be reached" in shown(away)


def test_a_database_that_is_away_is_a_problem() -> None:
    away = overview(READY, database=ServerState("db:27017/feedmill", "timeout"), data=DataState())
    assert away.problems() == ["database db:27017/feedmill: timeout"]


def test_messages_per_second_between_two_moments() -> None:
    busy = replace(READY, figures=Figures(answered=30))
    assert overview(busy, taken=104.0).since(overview(READY)).workers[0].per_second == 5.0


def test_no_rate_for_a_worker_that_was_started_in_between() -> None:
    again = replace(READY, pid=18, figures=Figures(answered=1))
    assert overview(again, taken=104.0).since(overview(READY)).workers[0].per_second is None


def test_the_table_shows_queues_and_latencies() -> None:
    text = shown(overview(replace(READY, per_second=2.5)))
    assert "12 ms" in text
    assert "1.5 s" in text
    assert "2.5" in text
    row = next(line for line in text.splitlines() if line.startswith("toxic-detect-queue"))
    assert row.split() == ["toxic-detect-queue", "4", "1", "8", "2", "missing"]


def test_the_json_holds_all_of_it() -> None:
    found = json.loads(json.dumps(overview(READY).as_json()))
    assert found["healthy"] is True
    assert found["problems"] == []
    assert found["database"] == {
        "address": "db:27017/feedmill",
        "problem": None,
        "active_space": "minilm",
        "counts": {"posts": 3},
    }
    toxic = found["workers"]["toxic"]
    assert (toxic["pid"], toxic["ready"], toxic["answered"], toxic["in_flight"]) == (17, True, 10, 2)
    assert toxic["queues"]["toxic-detect-queue"] == {"role": "input", "messages": 4, "consumers": 1}
