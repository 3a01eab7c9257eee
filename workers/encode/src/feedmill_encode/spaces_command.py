"""``feedmill-encode spaces``: list embedding spaces, switch the active one, remove one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from feedmill import logs
from feedmill.errors import ModelError, Outage, SettingsError
from feedmill.lifecycle import EXIT_FAILED, EXIT_USAGE, Shutdown, leave, run_process
from feedmill.settings import LogSettings, StoreSettings, read
from feedmill.spaces import SpaceInfo, activate, drop_space, list_spaces
from feedmill.store import Store
from feedmill.store.opening import open_store

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

    async def main(_: Shutdown) -> None:
        async with open_store(settings, "feedmill-spaces") as store:
            try:
                _show(await _do(store, options), as_json=options.json)
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
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|activate|drop")
    with_json = argparse.ArgumentParser(add_help=False)
    with_json.add_argument("--json", action="store_true", help="print JSON")
    commands.add_parser("list", parents=[with_json], help="all spaces, and how full they are")
    to_activate = commands.add_parser("activate", parents=[with_json], help="answer hints from this space")
    to_activate.add_argument("name")
    to_drop = commands.add_parser("drop", parents=[with_json], help="remove a space and its vectors; never the active")
    to_drop.add_argument("name")
    return parser


async def _do(store: Store, options: argparse.Namespace) -> dict[str, Any] | list[dict[str, Any]]:
    if options.command == "activate":
        await activate(store, options.name)
        return {"active": options.name}
    if options.command == "drop":
        return {"dropped": options.name, "vectors": await drop_space(store, options.name)}
    return [_row(info) for info in await list_spaces(store)]


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
