"""``feedmill dead``: the messages that could not be handled."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click
import orjson
from rich.console import Console

from feedmill.broker import letters
from feedmill.contract import ROUTES, Route
from feedmill_local import dead_letters
from feedmill_local.client import Client, open_client
from feedmill_local.dead_letters import Letter, Selection, Settled
from feedmill_local.state import endpoints, state_folder
from feedmill_local.terminal import printable, show_table

T = TypeVar("T")

LIST_LIMIT = 100
SHOWN_BODY_CHARS = 4000
SHOWN_FAILURES = 5

_worker = click.argument("worker", type=click.Choice(list(ROUTES)))
_message_id = click.option("--message-id", help="Only the letter with this message_id.")
_reason = click.option("--reason", help="Only letters that died for this reason, such as not_json.")
_limit = click.option("--limit", type=click.IntRange(min=1), help="At most so many, the oldest first.")


@click.group(short_help="Look at dead letters, replay or delete them.")
def command() -> None:
    """Dead letters: messages that could not be handled, in the queue <input queue>.dead, with the reason in headers.

    Looking takes the letters from the queue and gives them back to their old places when it is done; in between, other
    consumers of that queue don't see them. On a quorum queue with a delivery limit a look may count as a delivery, and
    of more than 10,000 letters those that were looked at go behind the others.
    """


@command.command("list")
@click.argument("worker", type=click.Choice(list(ROUTES)), required=False)
@click.option("--limit", type=click.IntRange(min=1), default=LIST_LIMIT, show_default=True, help="Letters of a worker.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each letter, a line each.")
def list_(worker: str | None, limit: int, as_json: bool) -> None:
    """List the dead letters of WORKER, or of all workers, oldest first. They stay where they are."""
    routes = [ROUTES[worker]] if worker else list(ROUTES.values())

    async def main(client: Client) -> list[tuple[int, list[Letter]]]:
        return [
            (await dead_letters.count(client, route), await dead_letters.look(client, route, Selection(limit=limit)))
            for route in routes
        ]

    for route, (total, found) in zip(routes, _with_client(main), strict=True):
        if as_json:
            for letter in found:
                click.echo(orjson.dumps(_summary(letter)))
        else:
            _show_list(route, total, found)


@command.command()
@_worker
@click.argument("index", type=click.IntRange(min=1), required=False)
@click.option("--message-id", help="The letter with this message_id, instead of INDEX.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show(worker: str, index: int | None, message_id: str | None, as_json: bool) -> None:
    """Show one dead letter: headers, reason and body. INDEX as in `feedmill dead list`; 1, the oldest, by default."""
    if index is not None and message_id is not None:
        raise click.UsageError("INDEX and --message-id: give one of them")
    position = index or 1
    selection = Selection(message_id=message_id, limit=1 if message_id is not None else position)
    found = _with_client(lambda client: dead_letters.look(client, ROUTES[worker], selection))
    wanted = [letter for letter in found if message_id is not None or letter.position == position]
    if not wanted:
        what = f"letter {position}" if message_id is None else f"letter with message_id {printable(message_id, 100)}"
        raise click.ClickException(f"{ROUTES[worker].dead_queue}: there is no {what}")
    if as_json:
        click.echo(orjson.dumps(_details(wanted[0])))
    else:
        _show_letter(wanted[0])


@command.command()
@_worker
@click.option("--all", "is_all", is_flag=True, help="All of them.")
@_message_id
@_reason
@_limit
def replay(worker: str, is_all: bool, message_id: str | None, reason: str | None, limit: int | None) -> None:
    """Send dead letters of WORKER back to its input queue, as if they were new.

    A letter is removed here only when the broker has confirmed it there: none is lost; after a lost connection one may
    be in both places, which the workers' writes by id make harmless.
    """
    if is_all == any((message_id, reason)):
        raise click.UsageError("expected either --all, or --message-id or --reason")
    route, selection = ROUTES[worker], Selection(message_id, reason, limit)
    settled = _with_client(lambda client: dead_letters.replay(client, route, selection))
    _report("replayed", route, settled)


@command.command()
@_worker
@_message_id
@_reason
@_limit
@click.option("--yes", is_flag=True, help="Don't ask.")
def purge(worker: str, message_id: str | None, reason: str | None, limit: int | None, yes: bool) -> None:
    """Delete dead letters of WORKER for good: all of them, or those that the options say. Asks before."""
    route, selection = ROUTES[worker], Selection(message_id, reason, limit)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody to ask: add --yes to delete dead letters for good")
        total = _with_client(lambda client: dead_letters.count(client, route))
        meant = f"all {total} dead letters" if selection.is_all else f"what the options say of {total} dead letters"
        click.confirm(f"Delete {meant} of {worker} for good?", abort=True, err=True)
    _report("deleted", route, _with_client(lambda client: dead_letters.purge(client, route, selection)))


def _with_client(main: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        settings, _ = endpoints(state_folder())
        async with open_client(settings) as client:
            return await main(client)

    return asyncio.run(run())


def _report(what: str, route: Route, settled: Settled) -> None:
    click.echo(f"{what} {settled.count} dead {_plural('letter', settled.count)} of {route.worker}")
    for failure in settled.failures[:SHOWN_FAILURES]:
        click.echo(f"stays: {printable(failure, 500)}", err=True)
    if len(settled.failures) > SHOWN_FAILURES:
        click.echo(f"stay: {len(settled.failures) - SHOWN_FAILURES} more", err=True)
    if settled.failures:
        sys.exit(1)


def _show_list(route: Route, total: int, found: Sequence[Letter]) -> None:
    title = f"{route.worker}: {total} dead {_plural('letter', total)} in {route.dead_queue}"
    if not found:
        click.echo(title)
        return
    if len(found) < total:
        title += f", the oldest {len(found)} shown"
    columns = ("#>", "message_id", "reason", "failures>", "died", "bytes>", "why")
    rows = [
        (
            str(letter.position),
            printable(letter.message_id, 40),
            printable(letter.reason, 40),
            printable(letter.header(letters.ATTEMPT), 5),
            printable(letter.header(letters.DEAD_AT), 20),
            str(letter.size),
            printable(letter.header(letters.DETAIL), 120),
        )
        for letter in found
    ]
    show_table(Console(), title, columns, rows)


def _summary(letter: Letter) -> dict[str, Any]:
    return {
        "worker": letter.worker,
        "index": letter.position,
        "message_id": letter.message_id,
        "correlation_id": letter.properties.correlation_id,
        "reason": letter.reason,
        "detail": letter.header(letters.DETAIL),
        "failures": (letter.properties.headers or {}).get(letters.ATTEMPT),
        "first_failed_at": letter.header(letters.FIRST_FAILED_AT),
        "dead_at": letter.header(letters.DEAD_AT),
        "bytes": letter.size,
    }


def _details(letter: Letter) -> dict[str, Any]:
    headers = {name: str(value) for name, value in (letter.properties.headers or {}).items()}
    return _summary(letter) | {"headers": headers, "body": _text(letter)}


def _show_letter(letter: Letter) -> None:
    click.echo(f"{ROUTES[letter.worker].dead_queue}, letter {letter.position}")
    fields = {"message_id": letter.message_id, "correlation_id": letter.properties.correlation_id or ""}
    fields |= {"content_type": letter.properties.content_type or ""}
    fields |= {str(name): str(value) for name, value in (letter.properties.headers or {}).items()}
    for name, value in fields.items():
        click.echo(f"  {printable(name, 60)}: {printable(value, 600)}")
    click.echo(f"body, {letter.size} bytes:")
    click.echo(_text(letter))


def _text(letter: Letter) -> str:
    """The body as text, at most SHOWN_BODY_CHARS of it, without what a terminal would act upon."""
    return printable(letter.body.decode("utf-8", "replace"), SHOWN_BODY_CHARS, lines=True)


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"
