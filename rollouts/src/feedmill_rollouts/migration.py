"""The phases of an encoder's rollout: the whole space moves, and at no time does a hint compare two models' vectors."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from feedmill_rollouts.moves import (
    approval,
    job_error,
    judge,
    keep_space,
    migrate_of,
    next_attempt,
    or_overdue,
    roll_back,
    verdict,
)
from feedmill_rollouts.observed import Observation
from feedmill_rollouts.spec import Spec
from feedmill_rollouts.status import MAX_CHECKS, Check, Status


def mirroring(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    """From here on every new post is in both spaces; only then the old posts are worth encoding."""
    if seen.routing_confirmed and seen.candidate_ready:
        return replace(status, phase="Backfilling", checked_at=now, message="the old posts are encoded")
    return or_overdue(spec, status, now, "the stable pods do not confirm the mirror")


def backfilling(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    judged = _judge_errors(status, seen.check)
    if failed := verdict(spec, judged, now):
        return failed
    if seen.job.state == "succeeded" and seen.job.answer.get("space"):
        new = str(seen.job.answer["space"])
        return replace(
            keep_space(judged, new), phase="Verifying", spaces={**judged.spaces, "new": new},
            message="the new space is measured",
        )  # fmt: skip
    if seen.job.state in ("failed", "succeeded"):
        if known := seen.job.answer.get("space"):  # what it has encoded stays, for the next run or to be dropped
            judged = replace(judged, spaces={**judged.spaces, "new": str(known)})
        return next_attempt(judged, now, f"backfill: {job_error(seen)}")
    if seen.backfill and dict(seen.backfill) != dict(judged.backfill):
        done, total = seen.backfill.get("done", "?"), seen.backfill.get("total", "?")
        return replace(judged, backfill=dict(seen.backfill), phase_at=now, message=f"{done} of {total} posts encoded")
    if seen.job.state == "running":  # bounded by its rate, not by a time: a large site takes days
        return judged
    return or_overdue(spec, judged, now, "the backfill does not start")


def _judge_errors(status: Status, check: Check | None) -> Status:
    """While old posts are encoded, new ones may be few: too few samples then are no sign of anything."""
    if check is not None and check.verdict == "Inconclusive":
        return replace(status, checks=(*status.checks, check)[-MAX_CHECKS:], checked_at=check.at)
    return judge(status, check)


def verifying(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    migrate = migrate_of(spec)
    judged = _judge_errors(status, seen.check)
    if failed := verdict(spec, judged, now):
        return failed
    if seen.job.state == "failed":
        return next_attempt(judged, now, f"verify: {job_error(seen)}")
    if seen.job.state != "succeeded":
        return or_overdue(spec, judged, now, "the new space is not measured")
    answer = seen.job.answer
    coverage, recall, old = answer.get("coverage"), answer.get("recall"), answer.get("active")
    measured = {name: answer[name] for name in ("coverage", "recall", "overlap", "posts", "sample") if name in answer}
    judged = replace(judged, spaces={**judged.spaces, **measured, **({"old": str(old)} if old else {})})
    if not isinstance(coverage, (int, float)) or not isinstance(recall, (int, float)) or not old:
        return next_attempt(judged, now, "verify: no coverage, recall or active space in its answer")
    if coverage < migrate.coverage:
        return next_attempt(judged, now, f"coverage {coverage:.4f} is below {migrate.coverage:g}", "Backfilling")
    if recall < migrate.recall:
        return roll_back(judged, now, "RecallTooLow", f"recall {recall:.3f} is below {migrate.recall:g}")
    if migrate.manual and seen.approved != approval(judged):
        return replace(judged, message=f"waits for approval: feedmill.dev/approve={approval(judged)}")
    # From now on the pointer may have moved, whatever becomes of the Job.
    return replace(judged, phase="Switching", switched=True, attempt=0, message="the new space becomes the active one")


def switching(spec: Spec, status: Status, seen: Observation, now: datetime) -> Status:
    if seen.job.state == "succeeded":
        return replace(
            status, phase="Promoting", promoted=True, owned=True, message="the stable worker gets the new model"
        )
    if seen.job.state == "failed":
        return next_attempt(status, now, f"activate: {job_error(seen)}")
    return or_overdue(spec, status, now, "the switch is not done")
