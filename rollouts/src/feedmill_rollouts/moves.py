"""The moves that several phases make: to begin, to count a check, to try again, to turn back, to end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from feedmill_rollouts.observed import Observation
from feedmill_rollouts.spec import JsonObject, Migrate, Model, Spec
from feedmill_rollouts.status import MAX_CHECKS, MAX_HISTORY, Check, Phase, Status, stamp

MAX_ATTEMPTS = 5
"""Runs of a Job: each finds only what the ones before left."""


def begin(spec: Spec, status: Status, wanted: Model, stable: Model, now: datetime) -> Status:
    """A new rollout, from what the target is told to run now: Helm may have changed that since the last one."""
    fresh = Status(
        phase="Starting",
        rollout_id=f"{spec.key}-{status.runs + 1}",
        runs=status.runs + 1,
        worker=spec.worker,
        target=spec.target,
        owned=status.owned,
        observed_generation=status.observed_generation,
        stable=stable,
        candidate=wanted,
        started_at=now,
        phase_at=now,
        # Above whatever the ModelRollout that had this target before has counted to.
        routing_generation=max(status.routing_generation, int(now.timestamp())),
        leftovers=status.leftovers,
        conditions=status.conditions,
        history=status.history,
        message=f"starting a candidate with {wanted.title}",
    )
    if wanted.key == stable.key:
        text = f"the stable worker runs {wanted.title}"
        done = replace(fresh, phase="Completed", outcome="Completed", reason="AlreadyStable", message=text)
        return replace(done, candidate=None, ended_at=now)
    if spec.rollback_to and spec.worker == "toxic":
        # It has served before: back at once, without steps.
        return replace(fresh, phase="Promoting", promoted=True, owned=True, message=f"back to {wanted.title}")
    return fresh


def resume(status: Status, now: datetime) -> Status:
    """As if the time of the pause had not been."""
    assert status.paused_at is not None  # noqa: S101 (for the type checker; the caller has looked)
    gap = now - status.paused_at
    return replace(
        status,
        paused_at=None,
        routed_at=status.routed_at + gap if status.routed_at else None,
        phase_at=status.phase_at + gap if status.phase_at else None,
        message="resumed",
    )


def roll_back(status: Status, now: datetime, reason: str, message: str) -> Status:
    """The way back begins. After a switch the model stays until the old space is the active one again."""
    return replace(
        status,
        phase="RollingBack",
        outcome="Aborted",
        reason=reason,
        message=message,
        stable=status.former or status.stable,
        former=None,
        promoted=status.promoted and status.switched,
        paused_at=None,
        attempt=0,
        ended_at=now,
    )


def leave_space(status: Status, name: object, due: datetime) -> Status:
    """Remember to drop the space ``name`` at ``due``: until then a retry finds what has been encoded."""
    if not name:
        return status
    others = tuple(entry for entry in status.leftovers if entry.get("space") != name)
    return replace(status, leftovers=(*others, {"space": str(name), "dropAt": stamp(due)}))


def keep_space(status: Status, name: object) -> Status:
    """The space ``name`` is in use again."""
    return replace(status, leftovers=tuple(entry for entry in status.leftovers if entry.get("space") != name))


def end(status: Status, now: datetime, message: str) -> Status:
    """Completed or Aborted, with an entry in the history. The time of an abort is that of its decision."""
    is_completed = status.outcome == "Completed"
    model = status.candidate if is_completed else status.stable
    ended = status.ended_at if status.ended_at and not is_completed else now
    entry: JsonObject = {
        "rolloutId": status.rollout_id,
        "outcome": status.outcome,
        "reason": status.reason,
        "message": message,
        "endedAt": stamp(ended),
        "model": Status(stable=status.candidate).to_json()["stableModel"],
    }
    if status.started_at:
        entry["startedAt"] = stamp(status.started_at)
    others = tuple(past for past in status.history if past.get("rolloutId") != status.rollout_id)
    return replace(
        status,
        phase="Completed" if is_completed else "Aborted",
        stable=model,
        ended_at=ended,
        former=None,
        drain="",
        dropping="",
        attempt=0,
        message=message or f"the stable worker runs {model.title if model else '?'}",
        history=(entry, *others)[:MAX_HISTORY],
    )


def next_attempt(
    status: Status, now: datetime, message: str, phase: Phase | None = None, limit: int | None = MAX_ATTEMPTS
) -> Status:
    """Run the phase's Job again under a new name; give up after ``limit`` runs, where there is a way back."""
    if limit is not None and status.attempt + 1 >= limit:
        return roll_back(status, now, "JobFailed", message)
    return replace(status, phase=phase or status.phase, attempt=status.attempt + 1, message=message, phase_at=now)


def or_overdue(spec: Spec, status: Status, now: datetime, why: str) -> Status:
    """The status as it is, or the way back where the phase has made no progress for too long."""
    if now >= since(status) + timedelta(seconds=spec.progress_deadline_seconds):
        return roll_back(status, now, "ProgressDeadlineExceeded", f"{status.phase}: {why}")
    return status


def since(status: Status) -> datetime:
    moment = status.phase_at or status.started_at
    assert moment is not None  # noqa: S101 (for the type checker; set when a rollout begins)
    return moment


def job_error(seen: Observation) -> str:
    return str(seen.job.answer.get("error") or "failed, see the Job's log")[:300]


def approval(status: Status) -> str:
    """What a person has to say to let the present step pass: good for this step of this rollout alone."""
    return f"{status.rollout_id}-{status.step}"


def judge(status: Status, check: Check | None) -> Status:
    if check is None:
        return status
    counted = replace(status, checks=(*status.checks, check)[-MAX_CHECKS:], checked_at=check.at)
    if check.verdict == "Pass":
        return replace(counted, passes=status.passes + 1, inconclusives=0)
    if check.verdict == "Fail":
        return replace(counted, passes=0, failures=status.failures + 1)
    return replace(counted, passes=0, inconclusives=status.inconclusives + 1)


def verdict(spec: Spec, status: Status, now: datetime) -> Status | None:
    """The way back, where the candidate has failed too often or could not be judged for too long."""
    last = status.checks[-1] if status.checks else None
    if last is not None and status.failures > spec.analysis.failure_limit:
        return roll_back(status, now, "AnalysisFailed", last.reason)
    if last is not None and status.inconclusives > spec.analysis.inconclusive_limit:
        return roll_back(status, now, "Inconclusive", f"{status.inconclusives} checks without an answer: {last.reason}")
    return None


def migrate_of(spec: Spec) -> Migrate:
    assert spec.migrate is not None  # noqa: S101 (for the type checker; only an encoder's phases ask)
    return spec.migrate
