"""An overview as tables for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from feedmill_local.overview import Overview, ServerState, WorkerState

NOTHING = "-"


def render(overview: Overview) -> RenderableType:
    """Servers, workers, queues, and what is wrong."""
    return Group(_servers(overview), _workers(overview), _queues(overview), _verdict(overview))


def _servers(overview: Overview) -> Table:
    table = Table.grid(padding=(0, 2))
    data = overview.data
    counts = ", ".join(f"{name}: {count}" for name, count in data.counts.items())
    table.add_row("RabbitMQ", _server(overview.broker))
    table.add_row("database", _server(overview.database))
    table.add_row("documents", counts or NOTHING)
    table.add_row("active space", data.active_space or NOTHING)
    return table


def _server(server: ServerState) -> Text:
    return Text(f"{server.address} can't be reached", "bold red") if server.problem else Text(server.address)


def _workers(overview: Overview) -> Table:
    table = _table("worker", "pid", "state", "answered", "failed", "in flight", "per second", "p50", "p95")
    for worker in overview.workers:
        figures = worker.figures
        numbers = [figures.answered, figures.failed, figures.in_flight] if figures else [None] * 3
        table.add_row(
            worker.name,
            _number(worker.pid),
            _state(worker),
            *map(_number, numbers),
            NOTHING if worker.per_second is None else f"{worker.per_second:.1f}",
            _seconds(figures.p50_seconds if figures else None),
            _seconds(figures.p95_seconds if figures else None),
        )
    return table


def _state(worker: WorkerState) -> Text:
    problem = worker.problem()
    if worker.pid is None:
        return Text(problem or "runs elsewhere", "red" if problem else "green")
    if problem is None:
        return Text("ready", "green")
    return Text(
        "not ready" if worker.alive and worker.live else "ended" if not worker.alive else "not live", "bold red"
    )


def _queues(overview: Overview) -> Table:
    table = _table("queue", "ready", "consumers", "retrying", "dead", "results")
    for worker in overview.workers:
        waiting = worker.queue("input")
        if waiting is None:
            continue
        dead, results = worker.queue("dead"), worker.queue("result")
        retrying = sum(queue.messages or 0 for queue in worker.queues if queue.role == "retry")
        table.add_row(
            waiting.name,
            _number(waiting.messages, missing="missing"),
            _number(waiting.consumers),
            _number(retrying),
            Text(_number(dead.messages if dead else None), "yellow" if dead and dead.messages else ""),
            _number(results.messages if results else None, missing="missing"),
        )
    return table


def _verdict(overview: Overview) -> Text:
    problems = overview.problems()
    if not problems:
        return Text("all is well", "green")
    return Text("\n").join(Text(problem, "red") for problem in problems)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for position, column in enumerate(columns):
        is_text = position == 0 or column == "state"
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    return table


def _number(value: int | None, missing: str = NOTHING) -> str:
    return missing if value is None else str(value)


def _seconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
