"""The decisions of a rollout, as pure functions: (spec, status, observation, now) to the next status and wishes.

No I/O and no clock. One call goes at most one step; the caller writes the status, brings the cluster to what
:func:`desired` says of it, and asks again. So a restart at any moment resumes from the status, and doing twice what
was done before changes nothing.

A classifier: Pending, Starting, Shadow and Canary (its steps), Promoting, Draining, Completed.
An encoder: Pending, Starting, Mirroring, Backfilling, Verifying, Switching, Promoting, Draining, Retaining, Dropping,
Completed. From everywhere before Completed: RollingBack, Draining, Restoring (where the space was switched), Aborted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from feedmill_rollouts import migration
from feedmill_rollouts.migration import migrate_of
from feedmill_rollouts.moves import (
    approval,
    begin,
    end,
    job_error,
    judge,
    next_attempt,
    or_overdue,
    resume,
    roll_back,
    since,
    verdict,
)
from feedmill_rollouts.observed import Decision, Event, Observation
from feedmill_rollouts.spec import Model, Spec
from feedmill_rollouts.status import FINAL, Phase, Status
from feedmill_rollouts.wishes import ENDING, desired, routing, step_of

LOOK_SECONDS = 5.0
IDLE_SECONDS = 60.0

ANALYSED: frozenset[Phase] = frozenset({"Shadow", "Canary", "Mirroring", "Backfilling", "Verifying"})


def decide(spec: Spec, status: Status, seen: Observation, now: datetime) -> Decision:
    """The next status. Its conditions are filled in by :mod:`.conditions`."""
    now = now.replace(microsecond=0)
    after = _next(spec, status, seen, now)
    events = _events(status, after)
    if after.phase != status.phase or (after.step, after.drain) != (status.step, status.drain):
        after = replace(after, phase_at=now)
    wanted = desired(spec, after)
    if wanted.routing != routing(spec, status):
        after = replace(after, routing_generation=status.routing_generation + 1)
        wanted = desired(spec, after)
    return Decision(after, wanted, _pause(spec, after, now), events)


def _next(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    if status.phase in ("", "Pending") and not (seen.target_found and seen.stable_model):
        return replace(status, phase="Pending", message=f"Deployment {spec.target} is not there")
    if status.stable is None:
        return replace(status, phase="Pending", stable=seen.stable_model, message="found the stable worker")
    wanted = _wanted(spec, status)
    if wanted is None:
        return replace(status, message=f"spec.rollbackTo: no rollout {spec.rollback_to} in status.history")
    if not _is_current(spec, status) and status.phase not in ENDING - FINAL:
        if status.phase == "Retaining":
            return end(status, now, f"the old space {status.spaces.get('old')} is left: another model is wanted")
        if status.phase in ("", "Pending", *FINAL):
            return begin(spec, status, wanted, now)
        return roll_back(status, now, "Superseded", "another model is wanted meanwhile")
    if status.phase in FINAL:
        is_again = status.phase == "Aborted" and seen.retried == status.rollout_id and seen.target_found
        return begin(spec, status, wanted, now) if is_again else status
    if seen.aborted and seen.aborted == status.rollout_id and status.phase not in ENDING:
        return roll_back(status, now, "Aborted", "aborted by hand")
    if spec.paused and status.phase not in ENDING:
        return status if status.paused_at else replace(status, paused_at=now, message="paused")
    if status.paused_at:
        return resume(status, now)
    return _PHASES[status.phase](spec, status, seen, now)


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


def _starting(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    if seen.candidate_ready and seen.stable_ready:
        if spec.worker == "encode":
            return replace(status, phase="Mirroring", message="copies of new posts go to the candidate")
        return _enter_step(spec, status, 0)
    return or_overdue(spec, status, now, "the candidate is not ready")


def _enter_step(spec: Spec, status: Status, number: int) -> Status:
    """Begin a step, or promote after the last."""
    clear = replace(status, step=number, passes=0, failures=0, inconclusives=0, checked_at=None)
    if number >= len(spec.steps):
        last = spec.steps[-1].kind if spec.steps else "shadow"
        return replace(
            clear, phase="Promoting", promoted=True, owned=True, message="the stable worker gets the new model",
            routed_at=clear.routed_at if last == "canary" else None,
        )  # fmt: skip
    step = spec.steps[number]
    name: Phase = "Shadow" if step.kind == "shadow" else "Canary"
    what = "copies" if step.kind == "shadow" else f"{step.share_percent:g} %"
    text = f"step {number + 1} of {len(spec.steps)}: {what} to the candidate"
    # A canary's next share is only more of the same; a shadow's Deployment changes its role first.
    is_same = number > 0 and spec.steps[number - 1].kind == step.kind
    return replace(clear, phase=name, message=text, routed_at=None if not is_same else status.routed_at)


def _step(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    """Shadow or canary: route, hold, look, go on."""
    step = step_of(spec, status)
    if step is None:  # the steps became fewer meanwhile: another rollout by its id; this one can't go on
        return roll_back(status, now, "Superseded", "the strategy changed")
    if status.routed_at is None:
        if seen.candidate_ready:
            return replace(status, routed_at=now, phase_at=now)
        return or_overdue(spec, status, now, "the candidate is not ready for the step")
    if status.checked_at is None:
        if not seen.routing_confirmed:
            return or_overdue(spec, status, now, "the stable pods do not confirm the routing")
        # The hold counts from here: only now every stable pod routes.
        return replace(status, routed_at=now, checked_at=now)
    judged = judge(status, seen.check)
    if failed := verdict(spec, judged, now):
        return failed
    held = (now - status.routed_at).total_seconds() if status.routed_at else 0.0
    if judged.passes < 1 or held < step.hold_seconds:
        return judged
    if step.manual and seen.approved != approval(judged):
        return replace(judged, message=f"waits for approval: feedmill.dev/approve={approval(judged)}")
    return _enter_step(spec, replace(judged, routed_at=now), status.step + 1)


def _promoting(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    assert status.candidate is not None  # noqa: S101 (for the type checker; a rollout has one)
    if seen.promoted_key == status.candidate.key and seen.stable_ready:
        return replace(
            status, phase="Draining", outcome="Completed", reason="Promoted", drain="Routing", attempt=0,
            message="the candidate hands over",
        )  # fmt: skip
    return or_overdue(spec, status, now, "the stable worker is not ready with the new model")


def _rolling_back(_: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    """Nothing is promoted any more and nothing is routed; the space, the model and the queue go back in that order."""
    assert status.stable is not None  # noqa: S101 (for the type checker; a rollout has one)
    if not seen.target_found:
        return end(replace(status, outcome="Aborted"), now, "the target is gone")
    if status.switched:
        if seen.job.state == "failed":
            return next_attempt(status, now, f"activate: {job_error(seen)}", limit=None)
        if seen.job.state != "succeeded":
            return status
    if status.owned and not (seen.promoted_key == status.stable.key and seen.stable_ready):
        return replace(status, message=f"{status.message.partition(' |')[0]} | the stable worker goes back")
    return replace(status, phase="Draining", drain="Routing", attempt=0, message=status.message.partition(" |")[0])


def _draining(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    """Routing off everywhere, then no candidate, then no messages in its queue: so nothing is left behind."""
    if not seen.target_found:
        return end(status, now, "the target is gone")
    if status.drain == "Routing":
        return replace(status, drain="Candidate") if seen.routing_confirmed else status
    if status.drain == "Candidate":
        return replace(status, drain="Queue", attempt=0) if seen.candidate_gone else status
    if seen.job.state == "failed":
        return next_attempt(status, now, f"drain: {job_error(seen)}", limit=None)
    if seen.job.state != "succeeded":
        return status
    drained = {name: seen.job.answer[name] for name in ("returned", "dropped") if name in seen.job.answer}
    status = replace(status, drain="", backfill={**status.backfill, **({"drained": drained} if drained else {})})
    if status.outcome == "Aborted" and status.switched:
        text = f"{status.message} | the old space gets the posts since the switch"
        return replace(status, phase="Restoring", attempt=0, message=text)
    if status.outcome == "Completed" and spec.migrate is not None and status.spaces.get("old"):
        return replace(status, phase="Retaining", stable=status.candidate,
                       message=f"the old space {status.spaces['old']} is kept for a way back")  # fmt: skip
    return end(status, now, status.message if status.outcome == "Aborted" else "")


def _pause(spec: Spec, status: Status, now: datetime) -> float:
    """When to look again, in seconds. Changes of the resource are seen at once in any case."""
    if status.phase in FINAL or status.phase == "Pending":
        return IDLE_SECONDS
    if status.phase == "Retaining":
        left = since(status) + timedelta(seconds=migrate_of(spec).keep_seconds) - now
        return max(LOOK_SECONDS, min(left.total_seconds(), IDLE_SECONDS))
    return min(LOOK_SECONDS, spec.analysis.interval_seconds)


def _events(before: Status, after: Status) -> tuple[Event, ...]:
    if (before.phase, before.step) == (after.phase, after.step) or after.phase in ("", "Pending"):
        return ()
    is_bad = after.phase in ("RollingBack", "Aborted")
    text = f"{after.reason}: {after.message}" if is_bad and after.reason else after.message
    return (Event("Warning" if is_bad else "Normal", after.phase, text),)


_PHASES: dict[Phase, Callable[[Spec, Status, Observation, datetime], Status]] = {
    "": lambda _spec, status, _seen, _now: status,
    "Pending": lambda _spec, status, _seen, _now: status,
    "Starting": _starting,
    "Shadow": _step,
    "Canary": _step,
    "Mirroring": migration.mirroring,
    "Backfilling": migration.backfilling,
    "Verifying": migration.verifying,
    "Switching": migration.switching,
    "Promoting": _promoting,
    "RollingBack": _rolling_back,
    "Draining": _draining,
    "Restoring": migration.restoring,
    "Retaining": migration.retaining,
    "Dropping": migration.dropping,
}
