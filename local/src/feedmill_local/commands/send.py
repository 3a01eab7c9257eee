"""``feedmill send``: messages for a worker, and its results."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from feedmill.contract import ROUTES, Route
from feedmill.settings import BrokerSettings
from feedmill_local import sources
from feedmill_local.client import Answer, Inbox, Request, Returned, open_client, send_all
from feedmill_local.sources import InputError
from feedmill_local.state import endpoints, state_folder

MANY = 20
"""From this many messages on, a terminal gets a progress bar."""
SHOWN_FAILURES = 5
Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line said of the messages."""

    route: Route
    text: str | None
    file: Path | None
    id: str | None
    top_k: int | None


@click.command(short_help="Send messages to a worker, and see its results.")
@click.argument("worker", type=click.Choice(list(ROUTES)))
@click.argument("text", required=False)
@click.option(
    "--file", "-f", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A JSON or JSON Lines file."
)
@click.option("--id", "id_", help="The _id of the comment or post (with TEXT, or alone for hint).")
@click.option("--top-k", type=click.IntRange(1, 100), help="How many posts hint answers with.  [default: 5]")
@click.option("--wait", is_flag=True, help="Print each result as a line of JSON; exit code 1 if some did not come.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds without any further result after which --wait gives up.",
)
def command(  # noqa: PLR0913, PLR0917 (click hands over one argument for each option)
    worker: str, text: str | None, file: Path | None, id_: str | None, top_k: int | None, wait: bool, timeout: float
) -> None:
    """Send messages to WORKER's exchange, as a backend would.

    The messages are TEXT; or a JSON file: one object, an array, or one object a line if it is named *.jsonl; or JSON
    Lines on standard input ("-", or piped). All input is read before anything is sent; that each message is a JSON
    object is all that is checked, so that a worker's own checks can be tried out too.

    --wait hears copies of the results on a private queue: nothing is taken from those who consume the result queue.
    Results go to standard output, everything else to standard error.

    \b
      feedmill send toxic "You are an idiot." --wait
      feedmill send encode "How do I prune a pear tree?" --id 507f1f77bcf86cd799439011
      feedmill send hint --id 507f1f77bcf86cd799439011 --top-k 3 --wait
      feedmill send encode --file posts.jsonl
      feedmill send toxic --wait < comments.jsonl
    """
    arguments = Arguments(ROUTES[worker], text, file, id_, top_k)
    try:
        requests = [Request(arguments.route, sources.encode(body)) for body in _bodies(arguments)]
    except InputError as error:
        raise click.UsageError(f"{error}. Nothing was sent.") from error
    settings, _ = endpoints(state_folder())
    if not asyncio.run(_send(settings, arguments.route, requests, timeout if wait else None)):
        sys.exit(1)


def _bodies(arguments: Arguments) -> list[dict[str, Any]]:
    """The messages' bodies, all of them read and checked. Raises InputError or UsageError."""
    if arguments.top_k is not None and arguments.route.worker != "hint":
        raise click.UsageError("--top-k: for hint only")
    if arguments.file is not None:
        _refuse_single(arguments, "--file")
        bodies = sources.from_file(arguments.file.read_bytes(), arguments.file.name)
    elif arguments.text == "-" or (arguments.text is None and arguments.id is None):
        bodies = _from_stdin(arguments)
    else:
        bodies = [_single(arguments)]
    if not bodies:
        raise InputError("no messages: expected at least one JSON object")
    return [{"top_k": arguments.top_k, **body} for body in bodies] if arguments.top_k is not None else bodies


def _from_stdin(arguments: Arguments) -> list[dict[str, Any]]:
    if arguments.text is None and sys.stdin.isatty():
        raise click.UsageError("nothing to send: give a TEXT, a --file, or JSON Lines on standard input")
    _refuse_single(arguments, "standard input")
    return sources.from_lines(sys.stdin.buffer, "standard input")


def _refuse_single(arguments: Arguments, source: str) -> None:
    if arguments.text not in {None, "-"}:
        raise click.UsageError(f"TEXT and {source}: give one of them")
    if arguments.id is not None:
        raise click.UsageError(f"--id: only with TEXT; messages from {source} carry their own _id")


def _single(arguments: Arguments) -> dict[str, Any]:
    """The message made of TEXT and --id."""
    worker = arguments.route.worker
    if worker != "toxic" and arguments.id is None:
        raise click.UsageError(f"{worker} needs the post's id: add --id, such as --id 507f1f77bcf86cd799439011")
    if worker != "hint" and arguments.text is None:
        raise click.UsageError(f"{worker} needs a TEXT beside --id")
    fields = {"_id": arguments.id, "content": arguments.text}
    return {name: value for name, value in fields.items() if value is not None}


async def _send(settings: BrokerSettings, route: Route, requests: list[Request], patience: float | None) -> bool:
    """Send all, and wait for the results where ``patience`` (seconds) says so; answer whether all went well."""
    async with open_client(settings) as client:
        await client.declare(route)
        with _bars(len(requests), shows_results=patience is not None) as (on_sent, on_answer):
            inbox = Inbox(lambda answer: _show(answer, on_answer))
            if patience is not None:
                await client.listen(route, inbox.receive)
            returned = await send_all(client, requests, inbox, on_sent)
            if patience is not None:
                await inbox.wait(patience, client.lost)
    _report_sent(route, len(requests), returned)
    if patience is not None:
        _report_answers(route, inbox, patience)
    return not returned and (patience is None or not inbox.pending)


def _show(answer: Answer, step: Step) -> None:
    click.echo(answer.body)
    step()


def _report_sent(route: Route, total: int, returned: list[Returned]) -> None:
    sent = total - len(returned)
    click.echo(f"sent {sent} {'message' if sent == 1 else 'messages'} to {route.queue}", err=True)
    for entry in returned[:SHOWN_FAILURES]:
        click.echo(f"not delivered: {entry.why}", err=True)
    if len(returned) > SHOWN_FAILURES:
        click.echo(f"not delivered: {len(returned) - SHOWN_FAILURES} more", err=True)


def _report_answers(route: Route, inbox: Inbox, patience: float) -> None:
    answered, missing = len(inbox.answers), len(inbox.pending)
    click.echo(f"{answered} answered", err=True)
    if missing:
        click.echo(
            f"{missing} not answered: no further result came for {patience:g} s. "
            f"Look at: feedmill status, feedmill dead list {route.worker}",
            err=True,
        )


@contextmanager
def _bars(total: int, *, shows_results: bool) -> Iterator[tuple[Step, Step]]:
    """What to call for each message sent and each result.

    For many messages on a terminal that moves two bars on standard error; not where results scroll by on the same
    terminal, as they show the progress themselves.
    """
    console = Console(stderr=True)
    if total < MANY or not console.is_terminal or (shows_results and sys.stdout.isatty()):
        yield _nothing, _nothing
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        sent = progress.add_task("sent", total=total)
        answered = progress.add_task("answered", total=total, visible=shows_results)
        yield partial(progress.advance, sent), partial(progress.advance, answered)


def _nothing() -> None:
    return None
