"""``feedmill-encode spaces``: list embedding spaces, switch, remove them, keep them in step with posts."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NoReturn

from feedmill import logs
from feedmill.errors import ModelError, Outage, SettingsError
from feedmill.lifecycle import EXIT_FAILED, EXIT_USAGE, Shutdown, leave, run_process
from feedmill.settings import LogSettings, StoreSettings, read
from feedmill.spaces import SpaceInfo, activate, drop_space, list_spaces
from feedmill.store import Store
from feedmill.store.opening import open_store
from feedmill_encode.backfill.filling import Pace, positive
from feedmill_encode.upkeep.copying import Copier
from feedmill_encode.upkeep.pruning import check_posts, prune
from feedmill_encode.upkeep.task import owner_name

COLUMNS = ("name", "active", "state", "dimensions", "vectors", "backfill", "model", "revision")


def run_spaces(arguments: Sequence[str]) -> NoReturn:
    """Parse ``arguments``, do it, exit: 0 done, 1 refused or the database is away, 2 wrong usage or settings."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = read(StoreSettings)
        logs.configure(read(LogSettings), "encode-spaces")
    except SettingsError as error:
        parser.exit(EXIT_USAGE, f"{parser.prog}: {error}\n")
    problems: list[str] = []

    async def main(shutdown: Shutdown) -> None:
        async with open_store(settings, "feedmill-spaces") as store:
            try:
                _show(await _do(store, options, shutdown.requested), as_json=options.json)
            except (ModelError, Outage) as error:
                problems.append(str(error))

    code = run_process(main)
    for problem in problems:
        sys.stderr.write(f"{parser.prog} {options.command}: {problem}\n")
    leave(EXIT_FAILED if problems else code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="feedmill-encode spaces",
        description="The embedding spaces in the database that MONGO_URI and DATABASE_NAME name.",
        epilog="exit status: 0 done, 1 refused or failed, 2 wrong usage or settings",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|activate|drop|copy|prune")
    with_json = argparse.ArgumentParser(add_help=False)
    with_json.add_argument("--json", action="store_true", help="print JSON")
    commands.add_parser("list", parents=[with_json], help="all spaces, and how full they are")
    to_activate = commands.add_parser("activate", parents=[with_json], help="answer hints from this space")
    to_activate.add_argument("name")
    to_drop = commands.add_parser("drop", parents=[with_json], help="remove a space and its vectors; never the active")
    to_drop.add_argument("name")
    _add_copy(commands.add_parser("copy", parents=[with_json], help="let posts.embedding follow the last switch, now"))
    _add_prune(commands.add_parser("prune", parents=[with_json], help="remove the vectors of posts that are gone, now"))
    return parser


def _add_copy(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Set posts.embedding of every post to its vector in the active space. The encode workers do so by themselves "
        "after a switch; this does it at once, together with them. It can be stopped and started again."
    )
    parser.add_argument("--rate", type=positive, metavar="POSTS_PER_SECOND", help="at most (default: no limit)")


def _add_prune(parser: argparse.ArgumentParser) -> None:
    parser.description = "Remove the vectors of posts that are gone. One of the encode workers does so once a day."
    parser.add_argument("name", nargs="?", help="one space (default: all)")
    parser.add_argument("--rate", type=positive, metavar="VECTORS_PER_SECOND", help="at most (default: no limit)")
    parser.add_argument(
        "--grace-seconds",
        type=_seconds,
        default=3600.0,
        help="a vector that is younger stays: its post may still be about to be stored (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="also where there are far fewer posts than vectors")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected 0 or more seconds, got {text}")
    return value


async def _do(store: Store, options: argparse.Namespace, stop: asyncio.Event) -> dict[str, Any] | list[dict[str, Any]]:
    if options.command == "copy":
        copied = await Copier(store, owner_name(), Pace(options.rate), stop).run(wait=True)
        if not copied.is_done:
            raise ModelError(f"stopped before the end: {copied.looked} posts looked at; start it again to go on")
        return asdict(copied)
    if options.command == "prune":
        return {"pruned": await _prune(store, options, stop)}
    if options.command == "activate":
        await activate(store, options.name)
        return {"active": options.name}
    if options.command == "drop":
        return {"dropped": options.name, "vectors": await drop_space(store, options.name)}
    return [_row(info) for info in await list_spaces(store)]


async def _prune(store: Store, options: argparse.Namespace, stop: asyncio.Event) -> dict[str, dict[str, Any]]:
    spaces = {info.space.name: info.space for info in await list_spaces(store)}
    if options.name and options.name not in spaces:
        raise ModelError(f"space {options.name} is not registered")
    chosen = [spaces[options.name]] if options.name else list(spaces.values())
    for space in chosen:
        if not options.force:
            await check_posts(store, space)
    done = {}
    for space in chosen:
        pruned = await prune(store, space, options.grace_seconds, Pace(options.rate), stop)
        if not pruned.is_done:
            raise ModelError(f"stopped before the end of space {space.name}: {pruned.removed} vectors removed")
        done[space.name] = {"looked": pruned.looked, "removed": pruned.removed}
    return done


def _row(info: SpaceInfo) -> dict[str, Any]:
    space = info.space
    values = (info.space.name, info.is_active, info.state, space.dimensions, info.vectors, dict(info.backfill))
    return dict(zip(COLUMNS, (*values, space.model, space.revision), strict=True))


def _show(answer: dict[str, Any] | list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        text = json.dumps(answer, default=_iso)
    elif isinstance(answer, list):
        text = _table(answer)
    else:
        text = ", ".join(f"{key}: {value}" for key, value in answer.items())
    sys.stdout.write(text + "\n")


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no spaces yet: the encode worker makes the first one when it starts"
    cells = [[name.upper() for name in COLUMNS], *([_cell(row[name]) for name in COLUMNS] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "*" if value else ""
    if isinstance(value, dict):
        return f"{value['state']} {value['done']}/{value['total']}" if value else ""
    return str(value)


def _iso(value: object) -> str:
    return value.isoformat() + "Z" if isinstance(value, datetime) else str(value)
