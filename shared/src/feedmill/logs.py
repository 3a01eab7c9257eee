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


def configure(settings: LogSettings, worker: str) -> None:
    """Send all logging to stderr, as ``settings`` say. Replaces what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(_format(settings.log_format), worker))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name, level in _NOISY.items():
        logging.getLogger(name).setLevel(level)


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
