"""Old and left spaces: kept for their time, then dropped. A space that is being dropped is no way back any more, so
nothing turns that around: it is finished first."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from feedmill_rollouts.moves import MAX_ATTEMPTS, end, job_error, keep_space, leave_space, migrate_of, since
from feedmill_rollouts.observed import Observation
from feedmill_rollouts.spec import Spec
from feedmill_rollouts.status import Phase, Status, moment


def retaining(spec: Spec, status: Status, _: Observation, now: datetime) -> Status:
    if spec.fault or now < _end_of_keeping(spec, status):
        return status
    return _drop(replace(status, message="the old space is dropped"), str(status.spaces.get("old")))


def superseded(spec: Spec, status: Status, now: datetime) -> Status:
    """Another model is wanted while the old space is kept: that is dropped when its time is over, whatever comes."""
    old = status.spaces.get("old")
    left = leave_space(status, old, _end_of_keeping(spec, status))
    return end(left, now, f"another model is wanted; space {old} is kept for its time")


def _end_of_keeping(spec: Spec, status: Status) -> datetime:
    return since(status) + timedelta(seconds=migrate_of(spec).keep_seconds)


def due_space(status: Status, now: datetime) -> str:
    """A space left by a rollout before whose time is over; empty where there is none."""
    for entry in status.leftovers:
        due = moment(entry.get("dropAt"))
        if due is not None and now >= due:
            return str(entry.get("space"))
    return ""


def drop_left(status: Status, name: str, now: datetime) -> Status:
    """From Completed or Aborted, and back to it afterwards."""
    return replace(_drop(status, name), phase_at=now)


def _drop(status: Status, name: str) -> Status:
    return replace(status, phase="Dropping", dropping=name, attempt=0)


def dropping(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    name = status.dropping
    if seen.job.state == "succeeded":
        return _dropped(status, now, f"space {name} is dropped")
    if seen.job.state == "failed":
        if status.attempt + 1 < MAX_ATTEMPTS:
            return replace(status, attempt=status.attempt + 1, phase_at=now)
        # Nothing depends on it: a space that stays costs room, no more.
        return _dropped(status, now, f"space {name} could not be dropped: {job_error(seen)}")
    if seen.job.state == "absent" and not seen.can_make_jobs:
        return _dropped(status, now, f"space {name} could not be dropped: Deployment {spec.target} is gone")
    if now >= since(status) + timedelta(seconds=spec.progress_deadline_seconds) and seen.job.state == "absent":
        return _dropped(status, now, f"space {name} could not be dropped: its Job can't be made")
    return status


def _dropped(status: Status, now: datetime, message: str) -> Status:
    status = keep_space(status, status.dropping)
    if status.ended_at is None:
        return end(status, now, message)
    first = status.message.partition(" | space ")[0]
    ended: Phase = "Completed" if status.outcome == "Completed" else "Aborted"
    return replace(status, phase=ended, dropping="", attempt=0, message=f"{first} | {message}")
