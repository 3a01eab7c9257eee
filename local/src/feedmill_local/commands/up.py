"""``feedmill up``: the stack on this machine, started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from feedmill.logs import redact
from feedmill_local.interrupts import stop_on_signals
from feedmill_local.lines import say
from feedmill_local.own_servers import log_file as server_log
from feedmill_local.stack import Interrupted, Options, bring_up, take_down
from feedmill_local.state import Stack, state_folder
from feedmill_local.supervise import Supervisor
from feedmill_local.workers import LOGS


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Return when all is ready, and leave it running.")
@click.option("--docker", is_flag=True, help="Run private servers that do not exist yet in containers.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=180.0,
    show_default=True,
    help="Seconds that the workers may take to become ready.",
)
def command(*, detach: bool, docker: bool, timeout: float) -> None:
    """Start RabbitMQ, the database and the three workers.

    Where RABBITMQ_URL or RABBITMQ_HOST, or MONGO_URI, are set (in the environment or in .env), those servers are used;
    only queues, exchanges and collections that the workers need are made there. Otherwise private servers are started,
    reachable from this machine only.

    Without --detach it stays in the foreground until Ctrl-C or SIGTERM, starts again what dies, and stops everything in
    the end. With --detach use `feedmill down`. A stack that runs already is left alone; one that has lost some of its
    processes gets them back.
    """
    folder = state_folder()
    with stop_on_signals() as stop:
        try:
            stack = bring_up(folder, Options(outlive=detach, docker=docker, timeout_seconds=timeout), say, stop)
        except Interrupted:
            say("interrupted: everything that was started is stopped")
            sys.exit(1)
        _show(stack, folder)
        if stack.supervisor is None or stack.supervisor.pid != os.getpid():
            say("feedmill status, feedmill logs, feedmill down")
        else:
            say("Ctrl-C stops it")
            Supervisor(folder, stack, say).run(stop)
            take_down(folder, say)
            say("stopped")


def _show(stack: Stack, folder: Path) -> None:
    """Where everything is, without credentials."""
    lines = [
        ("RabbitMQ", redact(stack.rabbitmq_url)),
        ("database", f"{redact(stack.mongo_uri).partition('?')[0]}, {stack.database}"),
        *((name, f"pid {worker.pid}, {worker.probe_url}") for name, worker in stack.workers.items()),
        ("logs", str(folder / LOGS)),
        *((f"  {name}", str(server_log(folder, name))) for name in stack.own_servers),
        ("state", f"{folder / 'stack.json'} (holds credentials)"),
    ]
    for title, text in lines:
        click.echo(f"  {title:<10} {text}")
