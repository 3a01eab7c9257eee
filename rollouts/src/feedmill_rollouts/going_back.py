"""The ends of a rollout, good and bad: routing off, candidate gone, its queue empty; and each step of the way back.

The space goes back before the model, so that whatever can't be done, model and active space are of one encoder.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from feedmill_rollouts.moves import MAX_ATTEMPTS, end, job_error, leave_space, migrate_of, next_attempt
from feedmill_rollouts.observed import Observation
from feedmill_rollouts.spec import Spec
from feedmill_rollouts.status import Status

DRAIN_BY_HAND = "python -m feedmill.drain --worker"


def rolling_back(_: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    """What leads forward is stopped; then the space goes back, then the model, then the queue."""
    assert status.stable is not None  # noqa: S101 (for the type checker; a rollout has one)
    if not seen.is_halted:
        return status
    if status.switched and seen.job.state != "succeeded":
        if seen.job.state == "failed":
            text = f"{_why(status)} | activate {status.spaces.get('old')}: {job_error(seen)}"
            return next_attempt(status, now, text, limit=None)
        return status if seen.job.state == "running" or seen.can_make_jobs else _stay(status, now)
    if status.promoted:
        return replace(status, promoted=False, message=f"{_why(status)} | the stable worker goes back")
    if not seen.target_found:
        return replace(status, phase="Draining", drain="Last", attempt=0, message=_why(status))
    if status.owned and not (seen.promoted_key == status.stable.key and seen.stable_ready):
        return replace(status, message=f"{_why(status)} | the stable worker goes back")
    return replace(status, phase="Draining", drain="Routing", attempt=0, message=_why(status))


def _stay(status: Status, now: datetime) -> Status:
    """Neither target nor candidate is left: nothing can switch the space back. Model and space stay as they are."""
    if status.promoted:
        text = f"{_why(status)}; space {status.spaces.get('new')} stays active, with its model"
        return end(replace(status, stable=status.candidate), now, text)
    return end(status, now, f"{_why(status)}; see to it that space {status.spaces.get('old')} is the active one")


def draining(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    """Routing off everywhere, then no candidate, then no messages in its queue: so nothing is left behind."""
    if not seen.target_found and status.drain != "Last":
        return replace(status, drain="Last", attempt=0)
    if status.drain == "Routing":
        return replace(status, drain="Candidate") if seen.routing_confirmed else status
    if status.drain == "Candidate":
        return replace(status, drain="Queue", attempt=0) if seen.candidate_gone else status
    is_hopeless = seen.job.state == "failed" and status.drain == "Last" and status.attempt + 1 >= MAX_ATTEMPTS
    if is_hopeless or (seen.job.state == "absent" and not seen.can_make_jobs):
        text = f"{_why(status)}; Deployment {spec.target} is gone, what the candidate's queue holds is left: "
        return _drained(spec, replace(status, message=f"{text}{DRAIN_BY_HAND} {spec.worker}"), seen, now)
    if seen.job.state == "failed":
        return next_attempt(status, now, f"{_why(status)} | drain: {job_error(seen)}", limit=None)
    if seen.job.state != "succeeded":
        return status
    drained = {name: seen.job.answer[name] for name in ("returned", "dropped") if name in seen.job.answer}
    status = replace(status, message=_why(status))
    return _drained(
        spec, replace(status, backfill={**status.backfill, **({"drained": drained} if drained else {})}), seen, now
    )


def _drained(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    status = replace(status, drain="")
    if status.outcome == "Aborted":
        if status.switched and seen.can_make_jobs:
            text = f"{status.message} | the old space gets the posts since the switch"
            return replace(status, phase="Restoring", attempt=0, message=text)
        return _aborted(spec, status, now, status.message)
    if spec.migrate is not None and status.spaces.get("old"):
        return replace(status, phase="Retaining", stable=status.candidate, former=status.stable,
                       message=f"the old space {status.spaces['old']} is kept for a way back")  # fmt: skip
    return end(status, now, "" if seen.target_found else status.message)


def restoring(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    if seen.job.state == "succeeded":
        return _aborted(spec, status, now, _why(status))
    if seen.job.state == "failed":
        return next_attempt(status, now, f"{_why(status)} | restore: {job_error(seen)}", limit=None)
    if seen.job.state == "absent" and not seen.can_make_jobs:
        text = f"{_why(status)}; the posts since the switch are missing in space {status.spaces.get('old')}"
        return _aborted(spec, status, now, text)
    return status


def _aborted(spec: Spec, status: Status, now: datetime, message: str) -> Status:
    """The candidate's space is kept as long as an old one would be: a retry goes on where this one was."""
    if spec.migrate is not None and status.spaces.get("new") != status.spaces.get("old"):
        due = now + timedelta(seconds=migrate_of(spec).keep_seconds)
        status = leave_space(status, status.spaces.get("new"), due)
    return end(status, now, message)


def _why(status: Status) -> str:
    return status.message.partition(" |")[0]
