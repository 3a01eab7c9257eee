"""``feedmill down``: the stack on this machine, stopped."""

from __future__ import annotations

import click

from feedmill_local.lines import say
from feedmill_local.stack import take_down
from feedmill_local.state import state_folder


@click.command()
@click.option("--purge", is_flag=True, help="Remove the private servers' data and all logs too.")
def command(*, purge: bool) -> None:
    """Stop what `feedmill up` started.

    The workers finish what they have started and hand back the rest; then the private servers stop. Servers that the
    settings name are never touched.
    """
    ran = take_down(state_folder(), say, purge=purge)
    say("stopped" if ran else "nothing runs")
