"""Lines that say how things go: plain text, so that they read the same in a terminal and in a file."""

from __future__ import annotations

import threading

import click

from feedmill.logs import redact

_lock = threading.Lock()


def say(text: str) -> None:
    """Print it at once, without credentials. Any thread may call it."""
    with _lock:
        click.echo(redact(text))
