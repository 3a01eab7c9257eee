"""A ModelRollout that is deleted: routing off, the candidate gone, and model and active space of one encoder.

Where an encoder's switch is half done, its way back is gone first, step by step as after an abort, for ten minutes at
most. All else is left to Jobs that outlive the ModelRollout: no deletion can hang.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from feedmill_rollouts import objects
from feedmill_rollouts.cluster import DEPLOYMENTS, Cluster
from feedmill_rollouts.doing import Doing
from feedmill_rollouts.observed import JobWanted, RoutingWanted
from feedmill_rollouts.spec import JsonObject, Spec
from feedmill_rollouts.status import BEGINNING, FINAL, Status, moment

LONGEST_SECONDS = 600.0


def is_half_switched(rollout: JsonObject, status: Status, now: datetime) -> bool:
    """Whether model and active space may be of two encoders, and there is still time to bring them together."""
    since = moment(rollout["metadata"].get("deletionTimestamp"))
    is_late = since is not None and now - since > timedelta(seconds=LONGEST_SECONDS)
    return status.switched and status.phase in ("Switching", "Promoting", "RollingBack") and not is_late


async def let_go(cluster: Cluster, doing: Doing, rollout: JsonObject, spec: Spec, status: Status) -> None:
    """Waits for nothing: Jobs wait for the candidate's pods to go and for the stable pods to have seen the change.
    Raises ApiError, to be tried again."""
    if status.phase in BEGINNING:  # it never touched anything; another ModelRollout may have the target
        return
    stable = await cluster.get(DEPLOYMENTS, spec.target)
    if status.phase not in FINAL | {"Retaining", "Dropping"}:
        generation = status.routing_generation + 1
        await doing.put_config(objects.routing_config(spec.target, RoutingWanted(generation=generation), rollout))
        if stable is not None:
            await doing.hasten(stable, generation)
    if status.stable is not None and (
        status.phase == "Promoting" or (status.phase == "RollingBack" and status.promoted)
    ):
        await doing.promote(spec.target, stable, status.stable)
    for job in _last_jobs(spec, status):
        await doing.put_job(rollout, spec, status.rollout_id, job, is_last=True)
    candidate = await cluster.get(DEPLOYMENTS, objects.candidate_name(spec.target))
    owners = ((candidate or {}).get("metadata") or {}).get("ownerReferences") or []
    if any(owner.get("uid") == rollout["metadata"].get("uid") for owner in owners):
        await cluster.delete(DEPLOYMENTS, objects.candidate_name(spec.target))


def _last_jobs(spec: Spec, status: Status) -> list[JobWanted]:
    """What is still to be done, by Jobs that nobody looks after."""
    found = []
    if status.phase not in FINAL | {"Retaining", "Dropping", "Restoring"}:
        found.append(JobWanted("drain", 0))
    is_back = status.phase in ("Switching", "Promoting", "RollingBack") or status.outcome == "Aborted"
    if spec.migrate is not None and status.switched and is_back and status.phase not in FINAL | {"Dropping"}:
        if status.phase in ("Switching", "Promoting", "RollingBack"):
            found.append(JobWanted("reactivate", 0, status.stable, (str(status.spaces.get("old", "")),)))
        found.append(JobWanted("restore", 0, status.stable, (f"{spec.migrate.rate:g}",)))
    if status.phase == "Dropping":
        found.append(JobWanted("drop", 0, None, (status.dropping,)))
    return found
