"""``feedmill run``: see it work, from nothing to answers."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from feedmill.contract import ROUTES
from feedmill.store.driver import display_address
from feedmill_local import demo, demo_report, sample_feed
from feedmill_local.demo import Outcome, Servers
from feedmill_local.interrupts import stop_on_signals
from feedmill_local.lines import say
from feedmill_local.own_servers import DATABASE, OWN, RABBITMQ, users_broker, users_store
from feedmill_local.sample_feed import Feed
from feedmill_local.stack import Interrupted, Options, bring_up, take_down
from feedmill_local.state import Stack, endpoints, load, state_folder
from feedmill_local.workers import LOGS

T = TypeVar("T")

INTERRUPT_POLL_SECONDS = 0.1


@click.command()
@click.option("--yes", is_flag=True, help="Do it on your own RabbitMQ or MongoDB too, where settings name them.")
@click.option("--docker", is_flag=True, help="Run private servers that do not exist yet in containers.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=180.0,
    show_default=True,
    help="Seconds that the workers may take to become ready.",
)
def command(*, yes: bool, docker: bool, timeout: float) -> None:
    """Try it: bring the stack up, send a sample feed, show the answers, take the stack down.

    A stack that runs already is used and left running. Ends with 0 if every message was answered and everything is in
    the database as the answers say; with 1 otherwise, saying why.
    """
    began = time.monotonic()
    folder, feed = state_folder(), sample_feed.load()
    before = load(folder)
    running = before if before is not None and before.runs(folder) else None
    own = _own_servers(running)
    if not yes and set(own) != set(OWN):
        raise click.UsageError(_what_it_writes(feed, folder, own))
    with stop_on_signals() as stop:
        options = Options(outlive=running is not None, docker=docker, timeout_seconds=timeout)
        try:
            bring_up(folder, options, say, stop)
            try:
                outcome = _play(feed, folder, RABBITMQ in own, stop)
            finally:
                if running is None:
                    take_down(folder, say)
        except Interrupted as error:
            say(str(error))
            sys.exit(1)
    _conclude(outcome, folder, time.monotonic() - began, is_left_running=running is not None)


def _own_servers(running: Stack | None) -> tuple[str, ...]:
    """Those of both servers that are private ones."""
    if running is not None:
        return running.own_servers
    users = {RABBITMQ: users_broker(), DATABASE: users_store()}
    return tuple(name for name in OWN if users[name] is None)


def _what_it_writes(feed: Feed, folder: Path, own: tuple[str, ...]) -> str:
    broker, store = endpoints(folder)
    lines = ["this would use servers of yours:"]
    if DATABASE not in own:
        lines.append(
            f"  {display_address(store)}: {len(feed.posts)} sample posts and {len(feed.comments)} sample comments are "
            "written to the collections posts and comments, and their vectors; DATABASE_NAME sets the database."
        )
    if RABBITMQ not in own:
        lines.append(
            f"  {broker.display_url()}: the messages go through the exchanges and queues of the contract, and whoever "
            "consumes the result queues gets the results."
        )
    return "\n".join([*lines, "Add --yes to do it, or unset RABBITMQ_URL, RABBITMQ_HOST and MONGO_URI."])


def _play(feed: Feed, folder: Path, broker_is_private: bool, stop: threading.Event) -> Outcome:
    console = Console()
    totals = {"toxic": len(feed.comments), "encode": len(feed.posts), "hint": len(feed.posts[:: demo.ASK_EVERY])}
    broker, store = endpoints(folder)
    servers = Servers(broker, store, broker_is_private)
    with demo_report.progress(console, totals) as on_answer:
        outcome = asyncio.run(_unless(stop, demo.play(feed, servers, on_answer, say)))
    demo_report.show(console, outcome)
    click.echo()
    return outcome


async def _unless(stop: threading.Event, main: Coroutine[Any, Any, T]) -> T:
    """Run ``main``, and cancel it when ``stop`` is set. Raises Interrupted then."""
    task = asyncio.ensure_future(main)
    while not task.done():
        await asyncio.wait([task], timeout=INTERRUPT_POLL_SECONDS)
        if stop.is_set() and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise Interrupted("interrupted: what was started is being stopped")
    return task.result()


def _conclude(outcome: Outcome, folder: Path, seconds: float, *, is_left_running: bool) -> None:
    answered = sum(len(outcome.answers[worker]) for worker in ROUTES)
    for problem in outcome.problems:
        click.echo(f"problem: {problem}", err=True)
    where = f"The logs are in {folder / LOGS}."
    if outcome.problems:
        click.echo(f"It did not work as it should: {answered} messages were answered. {where}", err=True)
        sys.exit(1)
    say(f"All {answered} messages were answered, and the database holds what they say. No dead letters.")
    say(f"{seconds:.1f} s in all. {where}")
    say("The stack goes on: feedmill down." if is_left_running else "Next: feedmill up, feedmill send --help.")
