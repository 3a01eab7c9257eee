"""Log lines that may come in floods, at most one in a while, with the number of those left out."""

from __future__ import annotations

import logging
import time


class ThrottledLog:
    """Logs the first of a kind at once, then at most one every ``interval_seconds``, saying how many it stands for."""

    def __init__(self, log: logging.Logger, interval_seconds: float = 5.0) -> None:
        self._log = log
        self._interval_seconds = interval_seconds
        self._due: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def log(self, level: int, kind: str, message: str, *args: object, exc_info: bool = False) -> None:
        now = time.monotonic()
        if now < self._due.get(kind, 0.0):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._due[kind] = now + self._interval_seconds
        left_out = self._left_out.pop(kind, 0)
        more = f" ({left_out} more like this since the last line)" if left_out else ""
        self._log.log(level, message + more, *args, exc_info=exc_info)
