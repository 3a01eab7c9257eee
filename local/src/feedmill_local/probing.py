"""Asking a worker's probes, on this machine: quick answers, or none. All functions block."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 2.0
NO_ANSWER = {"probes": "no answer yet"}


@dataclass(frozen=True)
class Readiness:
    """What ``/readyz`` says. ``missing``: the parts that are not there, and why."""

    ready: bool
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "ready" if self.ready else ", ".join(f"{part} ({why})" for part, why in self.missing.items())


def readiness(probe_url: str) -> Readiness:
    """The answer of ``/readyz``. A worker that does not answer is not ready."""
    answer = get(probe_url, "/readyz")
    if answer is None:
        return Readiness(False, NO_ANSWER)
    status, body = answer
    try:
        missing: dict[str, Any] = json.loads(body)["missing"]
        return Readiness(status == http.client.OK, {part: str(why) for part, why in missing.items()})
    except (ValueError, TypeError, KeyError, AttributeError):
        return Readiness(False, {"probes": f"unexpected answer, status {status}"})


def is_live(probe_url: str) -> bool:
    """Whether ``/livez`` answers 200."""
    answer = get(probe_url, "/livez")
    return answer is not None and answer[0] == http.client.OK


def metrics_text(probe_url: str) -> str | None:
    """What ``/metrics`` answers; None where it does not."""
    answer = get(probe_url, "/metrics")
    return answer[1] if answer and answer[0] == http.client.OK else None


def get(base_url: str, path: str) -> tuple[int, str] | None:
    """Status and body of ``base_url`` + ``path``; None where there was no answer in time. Uses no proxy."""
    base = urlsplit(base_url)
    connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", base.path + path)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
