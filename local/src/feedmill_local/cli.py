"""The command ``feedmill``: the stack on one machine, and messages to it.

A command's module is imported only when it is asked for, so that ``feedmill --help`` and ``feedmill status`` don't
wait for what other commands need.
"""

from __future__ import annotations

import importlib
import sys

import click

from feedmill import __version__
from feedmill.errors import FeedmillError, SettingsError
from feedmill.lifecycle import EXIT_FAILED, EXIT_USAGE
from feedmill.logs import redact

COMMANDS = {
    "up": "Start RabbitMQ, the database and the three workers.",
    "down": "Stop what `feedmill up` started.",
    "status": "Show queues, workers and the database, and whether all is well.",
    "logs": "Show the logs of the workers and the servers.",
    "serve": "Run the three workers in one process.",
    "send": "Send messages to a worker, and print its results.",
    "dead": "Look at dead letters, replay or remove them.",
    "rollout": "Look at a model's rollout on a cluster, promote, pause or abort it.",
    "run": "Try it: start everything, send a sample feed, show the answers, stop everything.",
}


class _Commands(click.Group):
    """Looks like any group; the commands' modules are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"feedmill_local.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="feedmill")
def feedmill() -> None:
    """Feedmill on one machine: judges comments, embeds posts, finds similar posts.

    Where RABBITMQ_URL or RABBITMQ_HOST, or MONGO_URI, are set (in the environment or in .env), those servers are used;
    otherwise private ones are started. State, data and logs are kept in .feedmill, or where FEEDMILL_STATE says.

    Exit codes: 0 done, 1 failed, 2 wrong usage or settings.
    """


def main() -> None:
    """The entry point. Errors that say what to do are shown without a traceback."""
    try:
        feedmill.main(prog_name="feedmill")
    except SettingsError as error:
        _leave(error, EXIT_USAGE)
    except FeedmillError as error:
        _leave(error, EXIT_FAILED)


def _leave(error: FeedmillError, code: int) -> None:
    click.echo(f"feedmill: {redact(str(error))}", err=True)
    sys.exit(code)
