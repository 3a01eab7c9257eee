"""The decisions of a rollout, as pure functions: (spec, status, observation, now) to the next status and wishes.

No I/O and no clock. One call goes at most one step; the caller writes the status, brings the cluster to what
:func:`desired` says of it, and asks again. So a restart at any moment resumes from the status, and doing twice what
was done before changes nothing.

A classifier: Pending, Starting, Shadow and Canary (its steps), Promoting, Draining, Completed.
An encoder: Pending, Starting, Mirroring, Backfilling, Verifying, Switching, Promoting, Draining, Retaining, Dropping,
Completed. From everywhere before Dropping: RollingBack, Draining, Restoring (where the space was switched), Aborted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from feedmill_rollouts import going_back, migration, retention, steps
from feedmill_rollouts.moves import begin, migrate_of, resume, roll_back, since
from feedmill_rollouts.observed import Decision, Desired, Event, Observation
from feedmill_rollouts.spec import Model, Spec
from feedmill_rollouts.status import BEGINNING, FINAL, Phase, Status
from feedmill_rollouts.wishes import ENDING, desired, routing

LOOK_SECONDS = 5.0
IDLE_SECONDS = 60.0

ANALYSED: frozenset[Phase] = frozenset({"Shadow", "Canary", "Mirroring", "Backfilling", "Verifying"})


def decide(spec: Spec, status: Status, seen: Observation, now: datetime) -> Decision:
    """The next status. Its conditions are filled in by :mod:`.conditions`."""
    now = now.replace(microsecond=0)
    if seen.claimed_by:
        text = f"waits: ModelRollout {seen.claimed_by} has Deployment {spec.target}"
        waiting = replace(status, phase="Pending", message=text) if status.phase in BEGINNING else status
        return Decision(waiting, Desired(), IDLE_SECONDS)
    wanted_model = _wanted(spec, status)
    if wanted_model is None and not spec.fault:
        fault = f"spec.rollbackTo: no completed rollout {spec.rollback_to} in status.history"
        spec = replace(spec, fault=fault)
    after = _next(spec, status, wanted_model or spec.model, seen, now)
    events = _events(status, after)
    if after.phase != status.phase or (after.step, after.drain) != (status.step, status.drain):
        after = replace(after, phase_at=now)
    wanted = desired(spec, after)
    before, routed = routing(spec, status), routing(spec, after)
    if (before.mode, before.share_percent) != (routed.mode, routed.share_percent):
        after = replace(after, routing_generation=after.routing_generation + 1)
        wanted = desired(spec, after)
    after = replace(after, share=routed.share_percent)
    return Decision(after, wanted, _pause(spec, after, now), events, spec.fault)


def _next(spec: Spec, status: Status, wanted: Model, seen: Observation, now: datetime) -> Status:
    if status.phase in BEGINNING:
        return _pending(spec, status, wanted, seen, now)
    if status.phase in FINAL:
        return _ended(spec, status, wanted, seen, now)
    if turned := _turned(spec, status, seen, now):
        return turned
    if spec.paused and status.phase not in ENDING:
        return status if status.paused_at else replace(status, paused_at=now, message="paused")
    if status.paused_at:
        return resume(status, now)
    after = _PHASES[status.phase](spec, status, seen, now)
    if after.phase == "Aborted" and after.stable and after.stable.key == seen.chart_key:
        after = replace(after, owned=False)  # it is the chart's own again, to change with Helm as before
    return after


def _pending(spec: Spec, status: Status, wanted: Model, seen: Observation, now: datetime) -> Status:
    if spec.fault:
        return replace(status, phase="Pending", message=spec.fault)
    if not seen.target_found or seen.stable_model is None:
        return replace(status, phase="Pending", message=f"Deployment {spec.target} is not there")
    if status.stable is None:
        return replace(status, phase="Pending", stable=seen.stable_model, message="found the stable worker")
    return begin(spec, status, wanted, seen.stable_model, now)


def _ended(spec: Spec, status: Status, wanted: Model, seen: Observation, now: datetime) -> Status:
    """Until another model is wanted, or the same once more."""
    if not seen.target_found or seen.stable_model is None or seen.is_deleted:
        return status
    is_again = status.phase == "Aborted" and (seen.retried == status.rollout_id or status.reason == "InvalidSpec")
    if not spec.fault and (is_again or not _is_current(spec, status)):
        return begin(spec, status, wanted, seen.stable_model, now)
    if spec.worker == "encode" and (space := retention.due_space(status, now)):
        return retention.drop_left(status, space, now)
    return status


def _turned(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status | None:
    """Where something other than the phase itself says where to go."""
    if status.phase in ENDING:
        return None
    if seen.is_deleted and status.phase != "Retaining":
        return roll_back(status, now, "Deleted", "the ModelRollout is deleted")
    if seen.aborted and seen.aborted == status.rollout_id:
        return roll_back(status, now, "Aborted", "aborted by hand")
    if status.phase == "Retaining":
        is_superseded = not spec.fault and not _is_current(spec, status)
        return retention.superseded(spec, status, now) if is_superseded else None
    if spec.fault:
        return roll_back(status, now, "InvalidSpec", spec.fault)
    if not _is_current(spec, status):
        return roll_back(status, now, "Superseded", "another model is wanted meanwhile")
    if not seen.target_found and status.phase != "Switching":  # its Job goes on, and what it did must be known
        return roll_back(status, now, "TargetGone", f"Deployment {spec.target} is gone")
    return None


def _is_current(spec: Spec, status: Status) -> bool:
    return status.rollout_id.rpartition("-")[0] == spec.key


def _wanted(spec: Spec, status: Status) -> Model | None:
    """The model to go to; None where it is named by a rollout that is not known."""
    if not spec.rollback_to:
        return spec.model
    for entry in status.history:
        if entry.get("rolloutId") == spec.rollback_to and entry.get("outcome") == "Completed":
            return Status.parse({"stableModel": entry.get("model")}).stable
    return status.candidate if _is_current(spec, status) else None


def _pause(spec: Spec, status: Status, now: datetime) -> float:
    """When to look again, in seconds. Changes of the resource are seen at once in any case."""
    if status.phase in FINAL or status.phase == "Pending":
        return IDLE_SECONDS
    if status.phase == "Retaining":
        left = since(status) + timedelta(seconds=migrate_of(spec).keep_seconds) - now
        return max(LOOK_SECONDS, min(left.total_seconds(), IDLE_SECONDS))
    return min(LOOK_SECONDS, spec.analysis.interval_seconds)


def _events(before: Status, after: Status) -> tuple[Event, ...]:
    if after.message != before.message and after.message.startswith("waits for approval"):
        return (Event("Normal", "WaitsForApproval", after.message),)
    if (before.phase, before.step) == (after.phase, after.step) or after.phase in BEGINNING:
        return ()
    if before.phase == "Dropping" and before.ended_at is not None:
        return (Event("Normal", "SpaceDropped", after.message.rpartition(" | ")[2]),)
    if after.phase == "Dropping":
        return (Event("Normal", "Dropping", f"space {after.dropping} is dropped"),)
    is_bad = after.phase in ("RollingBack", "Aborted")
    text = f"{after.reason}: {after.message}" if is_bad and after.reason else after.message
    return (Event("Warning" if is_bad else "Normal", after.phase, text),)


_PHASES: dict[Phase, Callable[[Spec, Status, Observation, datetime], Status]] = {
    "Starting": steps.starting,
    "Shadow": steps.step,
    "Canary": steps.step,
    "Mirroring": migration.mirroring,
    "Backfilling": migration.backfilling,
    "Verifying": migration.verifying,
    "Switching": migration.switching,
    "Promoting": steps.promoting,
    "RollingBack": going_back.rolling_back,
    "Draining": going_back.draining,
    "Restoring": going_back.restoring,
    "Retaining": retention.retaining,
    "Dropping": retention.dropping,
}
