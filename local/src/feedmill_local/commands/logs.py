"""``feedmill logs``: what the workers and the private servers say."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from feedmill.logs import redact
from feedmill_local import own_servers, workers
from feedmill_local.state import state_folder

POLL_SECONDS = 0.2
NAMES = (*workers.NAMES, *own_servers.OWN)


@click.command()
@click.argument("names", metavar="[toxic|encode|hint|rabbitmq|database]...", nargs=-1, type=click.Choice(NAMES))
@click.option("--follow", "-f", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option(
    "--lines", "-n", type=click.IntRange(min=0), default=20, show_default=True, help="The last lines of each log."
)
def command(*, names: Sequence[str], follow: bool, lines: int) -> None:
    """Show the logs of the stack on this machine: of all, or of those that are named.

    The logs stay when the stack is down, until `feedmill down --purge`.
    """
    folder = state_folder()
    logs = [_Log(name, path_of(folder, name), bool(len(names) != 1)) for name in names or NAMES]
    if not follow and not any(log.path.exists() for log in logs):
        raise click.ClickException(f"there is no log in {folder}: `feedmill up` writes them")
    for log in logs:
        log.show_last(lines)
    if follow:
        with suppress(KeyboardInterrupt):
            while True:
                for log in logs:
                    log.show_new()
                time.sleep(POLL_SECONDS)


def path_of(folder: Path, name: str) -> Path:
    """Where the log of a worker or of a private server is."""
    return workers.log_file(folder, name) if name in workers.NAMES else own_servers.log_file(folder, name)


class _Log:
    """One log, shown up to ``_offset``."""

    def __init__(self, name: str, path: Path, named: bool) -> None:
        self.path = path
        self._prefix = f"{name:<8} | " if named else ""
        self._offset = 0

    def show_last(self, lines: int) -> None:
        with suppress(FileNotFoundError):
            self._offset = self.path.stat().st_size
        for line in workers.tail(self.path, lines):
            self._show(line)

    def show_new(self) -> None:
        """What was added since the last time: whole lines only."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._offset:
                self._offset = 0  # somebody emptied it
            file.seek(self._offset)
            added = file.read().rpartition(b"\n")
            self._offset += len(added[0]) + len(added[1])
            if added[1]:
                for line in added[0].decode("utf-8", "replace").split("\n"):
                    self._show(line)

    def _show(self, line: str) -> None:
        click.echo(self._prefix + redact(click.unstyle(line)))
