"""Exclusive locks between processes, by files."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from feedmill_local.errors import StackError
from feedmill_local.processes import wait_until


@contextmanager
def locked(path: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock on ``path``, a file made for it. The kernel frees it when this process ends, however that happens.

    Raises:
        StackError: another process still holds it after ``timeout_seconds``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        if not wait_until(lambda: _take(file), timeout_seconds):
            raise StackError(f"another process has held {path} for {timeout_seconds:.0f} s: end it, then try again")
        yield


def _take(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
