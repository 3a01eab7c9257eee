"""What the commands show: tables on a terminal, plain lines elsewhere, and nothing that a terminal would act upon."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


def printable(text: str, limit: int, *, lines: bool = False) -> str:
    """``text`` cut to ``limit`` characters, with control characters escaped: others wrote it.

    ``lines`` keeps line ends and tabs.
    """
    kept = {"\n", "\t"} if lines else set()
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() or char in kept else _escape(char) for char in shown)


def show_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; columns whose heads end in ``>`` are set to the right. Elsewhere than on a terminal, aligned lines."""
    if console.is_terminal:
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    heads = [column.rstrip(">") for column in columns]
    widths = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
    click.echo(title)
    for row in [heads, *rows]:
        cells = zip(row, widths, columns, strict=True)
        aligned = (cell.rjust(width) if column.endswith(">") else cell.ljust(width) for cell, width, column in cells)
        click.echo("  ".join(("", *aligned)).rstrip())


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
