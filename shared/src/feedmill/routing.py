"""Which messages the stable worker leaves to a rollout's candidate.

Queue consumers can't be canaried by traffic weights, so the stable worker routes: ``share`` hands an exact share of the
messages, chosen by a hash of the id, to the candidate's queue instead of handling them; ``mirror`` handles all and
sends copies. The choice comes from a small JSON file, a mounted ConfigMap in Kubernetes:

    {"mode": "share", "share": 12.5, "generation": 7}

``share`` is in percent, in steps of 0.01. ``generation`` is reported back as a metric, so that who wrote the file can
see that it is in effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, cast

import orjson

from feedmill.errors import MessageError, SettingsError
from feedmill.ids import id_text, parse_id
from feedmill.metrics import Metrics

_log = logging.getLogger(__name__)

Mode = Literal["off", "mirror", "share"]
MODES = ("off", "mirror", "share")

BUCKETS = 10_000
"""A share is a number of buckets: steps of 0.01 %."""
MAX_FILE_BYTES = 65_536
ID_FIELDS = ("_id", "commentId")


@dataclass(frozen=True, slots=True)
class Routing:
    """What goes to the candidate. ``share_percent`` counts in mode ``share`` only."""

    mode: Mode = "off"
    share_percent: float = 0.0
    generation: int = 0

    @property
    def mirrors(self) -> bool:
        return self.mode == "mirror"

    def takes(self, bucket: int) -> bool:
        """Whether a message in this bucket is the candidate's. A larger share only adds buckets."""
        return self.mode == "share" and bucket < round(self.share_percent * BUCKETS / 100)


OFF = Routing()


def parse(content: bytes) -> Routing:
    """The routing in a file's content. Fields that are not known are left for later versions.

    Raises:
        SettingsError: names the field and what was expected.
    """
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"{len(content)} bytes, expected at most {MAX_FILE_BYTES}")
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise SettingsError(f"expected a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise SettingsError(f"expected a JSON object, got {type(value).__name__}")
    mode, share, generation = value.get("mode"), value.get("share", 0), value.get("generation", 0)
    if mode not in MODES:
        raise SettingsError(f"mode: expected off, mirror or share, got {str(mode)[:50]!r}")
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 100:
        raise SettingsError(f"share: expected a number from 0 to 100 (percent), got {str(share)[:50]!r}")
    if isinstance(generation, bool) or not isinstance(generation, int) or generation < 0:
        raise SettingsError(f"generation: expected a whole number from 0, got {str(generation)[:50]!r}")
    if mode == "share" and "share" not in value:
        raise SettingsError("share: missing, expected a number from 0 to 100 (percent) in mode share")
    return Routing(cast("Mode", mode), float(share) if mode == "share" else 0.0, generation)


def bucket(body: Mapping[str, Any], raw: bytes) -> int:
    """The message's bucket, 0 to BUCKETS - 1: the same for every message with the same id, however it is spelt.

    A message without a usable id is known by its body. Uniform: 64 bits of BLAKE2b, of which the remainder by BUCKETS
    is off by less than 1e-15.
    """
    digest = blake2b(_identity(body, raw), digest_size=8, person=b"feedmill-routing").digest()
    return int.from_bytes(digest, "big") % BUCKETS


def _identity(body: Mapping[str, Any], raw: bytes) -> bytes:
    for field in ID_FIELDS:
        value = body.get(field)
        if value is None:
            continue
        try:
            return b"id:" + id_text(parse_id(value, field)).encode()
        except MessageError:  # such a message is refused wherever it goes
            break
    return b"body:" + raw


class RoutingFile:
    """The routing that a file asks for, followed while :meth:`run` runs.

    Read whole at each look, so it makes no difference how it is replaced: the kubelet swaps a symlink two levels up. A
    file that is not there means ``off``. One that can't be understood, or read, changes nothing: the last good routing
    holds, ``feedmill_routing_file_valid`` is 0, and the log says why.
    """

    def __init__(self, path: str, poll_seconds: float, metrics: Metrics) -> None:
        self._path = Path(path) if path else None
        self._poll_seconds = poll_seconds
        self._metrics = metrics
        self._seen: bytes | str | None = None
        self.current = OFF
        self._apply(OFF)

    async def run(self) -> None:
        """Never returns while there is a file to follow; cancel it."""
        while self._path is not None:
            await self.look()
            await asyncio.sleep(self._poll_seconds)

    async def look(self) -> None:
        """Read the file once, and go by it if it changed."""
        assert self._path is not None  # noqa: S101 (for the type checker; run() has looked)
        try:
            content: bytes | str = await asyncio.to_thread(_read, self._path)
        except FileNotFoundError:
            content = b'{"mode": "off"}'
        except OSError as error:
            content = f"can't be read: {error.strerror or type(error).__name__}"
        if content == self._seen:
            return
        self._seen = content
        try:
            routing = parse(content) if isinstance(content, bytes) else None
        except SettingsError as error:
            self._keep(str(error))
        else:
            if routing is None:
                self._keep(str(content))
            else:
                self._apply(routing)

    def _keep(self, why: str) -> None:
        self._metrics.routing_valid.set(0)
        _log.error("routing file %s is unusable, staying with %s: %s", self._path, _describe(self.current), why)

    def _apply(self, routing: Routing) -> None:
        if routing != self.current:
            _log.info("routing: %s (before: %s)", _describe(routing), _describe(self.current))
        self.current = routing
        self._metrics.routing_valid.set(1)
        self._metrics.routing_share.set(routing.share_percent)
        self._metrics.routing_mirrors.set(routing.mirrors)
        self._metrics.routing_generation.set(routing.generation)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _describe(routing: Routing) -> str:
    share = f" {routing.share_percent:g} %" if routing.mode == "share" else ""
    return f"{routing.mode}{share}, generation {routing.generation}"
