"""Scale-down kindness: idle pods first.

A Deployment that is scaled down removes the pods with the lowest ``controller.kubernetes.io/pod-deletion-cost`` first.
The operator keeps that in line with each pod's messages in flight, in coarse steps, and patches only on a change: the
annotation is a hint, and every patch is a write to the cluster's database.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import aiohttp

from feedmill_rollouts.cluster import PODS, ApiError, Cluster
from feedmill_rollouts.objects import DELETION_COST
from feedmill_rollouts.scrape import is_running, scrape

log = logging.getLogger(__name__)

WORKERS = {"app.kubernetes.io/name": "feedmill"}
INTERVAL_SECONDS = 15.0


def cost(in_flight: float) -> int:
    """0 for an idle pod, then one step for each doubling: 1, 2-3, 4-7, 8-15 messages."""
    return int(in_flight).bit_length()


async def keep(cluster: Cluster, session: aiohttp.ClientSession) -> int:
    """Set the cost of every worker's pod in the namespace; answers how many were changed. Raises ApiError."""
    pods = [pod for pod in await cluster.list(PODS, WORKERS) if is_running(pod)]
    read = await scrape(session, pods, datetime.now(UTC))
    changed = 0
    for pod in pods:
        name = pod["metadata"]["name"]
        samples = read.pods[name]
        in_flight = samples.get(("feedmill_messages_in_flight", ())) if samples is not None else None
        if in_flight is None:  # no worker, or it does not answer: what is known stays
            continue
        wanted = str(cost(in_flight))
        if (pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0") == wanted:
            continue
        try:
            await cluster.patch(PODS, name, {"metadata": {"annotations": {DELETION_COST: wanted}}})
        except ApiError as error:
            if error.status != 404:
                raise
            continue
        changed += 1
    return changed
