"""``feedmill status``: is all well?"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from feedmill.lifecycle import EXIT_FAILED
from feedmill_local.overview import Overview, take, take_with_rates
from feedmill_local.own_servers import users_broker, users_store
from feedmill_local.state import load, state_folder
from feedmill_local.status_table import render

NOTHING_RUNS = "nothing runs here, and no setting says where it does: `feedmill up` starts it"
REFRESH_SECONDS = 1.0
PLAIN_WIDTH = 120


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def command(*, as_json: bool, watch: bool) -> None:
    """Show queues, workers and the database, and whether all is well.

    Works with `feedmill up`'s stack, and with the servers that the settings name: workers that run elsewhere are judged
    by whether somebody consumes their queues. Looking changes nothing: queues are declared passively.

    Exit code 0 if all is well, 1 otherwise. Latencies (from receipt to acknowledgement) are since a worker's start;
    messages per second are those of the last second.
    """
    if as_json and watch:
        raise click.UsageError("--json and --watch exclude each other")
    folder = state_folder()
    if load(folder) is None and users_broker() is None and users_store() is None:
        click.echo(json.dumps({"healthy": False, "problems": [NOTHING_RUNS]}) if as_json else NOTHING_RUNS)
        sys.exit(EXIT_FAILED)
    overview = _watch(folder) if watch else asyncio.run(take_with_rates(folder))
    if as_json:
        click.echo(json.dumps(overview.as_json(), indent=2))
    elif not watch:
        _console().print(render(overview))
    sys.exit(EXIT_FAILED if overview.problems() else 0)


def _watch(folder: Path) -> Overview:
    """Show it until Ctrl-C; the last one. Without a terminal, one table after the other."""
    console = _console()
    overview = asyncio.run(take(folder))
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            if console.is_terminal:
                live.update(render(overview), refresh=True)
            else:
                console.print(render(overview))
            overview = asyncio.run(_next(folder, overview))
    return overview


async def _next(folder: Path, before: Overview) -> Overview:
    await asyncio.sleep(REFRESH_SECONDS)
    return (await take(folder)).since(before)


def _console() -> Console:
    """A file or a pipe gets lines wide enough to stay whole."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
