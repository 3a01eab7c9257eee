"""A classifier's steps, from the candidate's start to its promotion (an encoder has the first and the last as well)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from feedmill_rollouts.moves import approval, judge, or_overdue, roll_back, verdict
from feedmill_rollouts.observed import Observation
from feedmill_rollouts.spec import Spec
from feedmill_rollouts.status import Phase, Status
from feedmill_rollouts.wishes import step_of


def starting(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
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


def step(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    """Shadow or canary: route, hold, look, go on."""
    present = step_of(spec, status)
    if present is None:  # the steps became fewer meanwhile: another rollout by its id; this one can't go on
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
    if judged.passes < 1 or held < present.hold_seconds:
        return judged
    if present.manual and seen.approved != approval(judged):
        return replace(judged, message=f"waits for approval: feedmill.dev/approve={approval(judged)}")
    return _enter_step(spec, replace(judged, routed_at=now), status.step + 1)


def promoting(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    assert status.candidate is not None  # noqa: S101 (for the type checker; a rollout has one)
    if seen.promoted_key == status.candidate.key and seen.stable_ready:
        return replace(
            status, phase="Draining", outcome="Completed", reason="Promoted", drain="Routing", attempt=0,
            message="the candidate hands over",
        )  # fmt: skip
    return or_overdue(spec, status, now, "the stable worker is not ready with the new model")
