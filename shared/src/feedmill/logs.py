"""Logging: JSON lines in a container, readable lines on a terminal, credentials never."""

from __future__ import annotations

import logging
import re
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

from feedmill.settings import LogSettings

# To the last @ of the word: a password that should be percent-encoded and is not may hold an @ or a slash. In JSON the
# word ends with its quote; an escaped quote is part of it.
_CREDENTIALS = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?:\\.|[^\s\"\\])*@", re.IGNORECASE)

_NOISY = {
    # aiormq logs what our own supervisor handles and logs once, with its cause.
    "aiormq": logging.CRITICAL,
    "aio_pika": logging.CRITICAL,
    "pymongo": logging.ERROR,
    "aiohttp.access": logging.WARNING,
    "httpx": logging.WARNING,
    "transformers": logging.ERROR,
}


def redact(text: str) -> str:
    """``text`` with the credentials of every URL in it replaced."""
    return _CREDENTIALS.sub(r"\g<scheme>***@", text)


class _Json(JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _outage_in_a_line(record: logging.LogRecord) -> bool:
    """The driver's housekeeping logs a traceback for what an outage does to it. The gate tells of the outage itself."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and any(kind.__module__ == "pymongo.errors" for kind in type(error).__mro__):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = "the driver's housekeeping failed: %s: %s", (type(error).__name__, str(error)[:200])
        record.exc_info = record.exc_text = None
    return True


def configure(settings: LogSettings, worker: str) -> None:
    """Send all logging to stderr, as ``settings`` say. Replaces what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(_format(settings.log_format), worker))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name, level in _NOISY.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger("pymongo.client").addFilter(_outage_in_a_line)  # added once, however often this is called


def _format(choice: Literal["auto", "json", "text"]) -> Literal["json", "text"]:
    if choice == "auto":
        return "text" if sys.stderr.isatty() else "json"
    return choice


def _formatter(kind: Literal["json", "text"], worker: str) -> logging.Formatter:
    if kind == "text":
        return _Text(f"%(asctime)s {worker:<6} %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    return _Json(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        static_fields={"worker": worker},
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
