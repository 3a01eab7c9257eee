"""Reading pods' ``/metrics``: all at once, with a timeout each; a pod that does not answer is noted, not an error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime

import aiohttp

from feedmill_rollouts.analysis import Samples, Scrape, parse_metrics
from feedmill_rollouts.objects import metrics_port
from feedmill_rollouts.spec import JsonObject

log = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=5, connect=2)
MAX_BYTES = 8 * 1024 * 1024
AT_ONCE = 20


async def scrape(session: aiohttp.ClientSession, pods: Sequence[JsonObject], now: datetime) -> Scrape:
    """The metrics of these pods, read at about ``now``. ``session`` has no credentials: pods get none."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(pod: JsonObject) -> Samples | None:
        async with limit:
            return await _read(session, pod)

    read = await asyncio.gather(*(one(pod) for pod in pods))
    return Scrape(now, {pod["metadata"]["name"]: samples for pod, samples in zip(pods, read, strict=True)})


async def _read(session: aiohttp.ClientSession, pod: JsonObject) -> Samples | None:
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        return None
    host = f"[{address}]" if ":" in address else address
    try:
        async with session.get(f"http://{host}:{metrics_port(pod)}/metrics", timeout=TIMEOUT) as answer:
            if answer.status != 200:
                return None
            body = await answer.content.read(MAX_BYTES + 1)
            while len(body) <= MAX_BYTES and (more := await answer.content.read(MAX_BYTES + 1)):
                body += more
        return parse_metrics(body.decode()) if len(body) <= MAX_BYTES else None
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        log.info("metrics of pod %s can't be read: %s", pod["metadata"]["name"], type(error).__name__)
        return None


def is_running(pod: JsonObject) -> bool:
    """Whether the pod counts: it runs, and is not on its way out."""
    return (pod.get("status") or {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
