"""What the cluster should be like while a status holds: functions of spec and status alone."""

from __future__ import annotations

from dataclasses import replace

from feedmill_rollouts.observed import CandidateWanted, Desired, JobWanted, RoutingWanted
from feedmill_rollouts.spec import Spec, Step
from feedmill_rollouts.status import FINAL, Phase, Status

ENDING: frozenset[Phase] = frozenset({"RollingBack", "Draining", "Restoring", "Dropping", "Aborted", "Completed"})
"""What nothing turns around."""
ENCODER_MIRRORS: frozenset[Phase] = frozenset({"Mirroring", "Backfilling", "Verifying", "Switching", "Promoting"})


def desired(spec: Spec, status: Status) -> Desired:
    """What the cluster should be like while ``status`` holds: a function of it alone."""
    if status.phase in ("", "Pending"):
        return Desired()
    return Desired(
        routing=routing(spec, status),
        candidate=_candidate(spec, status),
        keeps_candidate=status.phase not in FINAL | {"Restoring", "Retaining", "Dropping"}
        and not (status.phase == "Draining" and status.drain in ("Candidate", "Queue", "Last")),
        stable_model=(status.candidate if status.promoted else status.stable) if status.owned else None,
        job=_job(spec, status),
        is_halted=status.phase == "RollingBack",
    )


def step_of(spec: Spec, status: Status) -> Step | None:
    return spec.steps[status.step] if status.step < len(spec.steps) else None


def routing(spec: Spec, status: Status) -> RoutingWanted:
    off = RoutingWanted(generation=status.routing_generation)
    if status.phase in ENCODER_MIRRORS and spec.worker == "encode":
        return replace(off, mode="mirror")
    if status.phase == "Shadow" and status.routed_at:
        return replace(off, mode="mirror")
    if status.phase in ("Canary", "Promoting") and status.routed_at:
        step = step_of(spec, status) or (spec.steps[-1] if spec.steps else None)
        if step is not None and step.kind == "canary":
            return replace(off, mode="share", share_percent=step.share_percent)
    return off


def _candidate(spec: Spec, status: Status) -> CandidateWanted | None:
    if status.candidate is None or status.phase in ENDING | {"Retaining", "Dropping", "", "Pending"}:
        return None
    if spec.worker == "encode":
        return CandidateWanted(status.candidate, "shadow", 100.0)
    if status.phase == "Promoting" and status.routed_at is None:
        return None
    step = step_of(spec, status) or (spec.steps[-1] if spec.steps else None)
    if step is None:
        return None
    is_shadow = step.kind == "shadow"
    return CandidateWanted(
        status.candidate, "shadow" if is_shadow else "candidate", 100.0 if is_shadow else step.share_percent
    )


def _job(spec: Spec, status: Status) -> JobWanted | None:
    migrate, spaces = spec.migrate, status.spaces
    if status.phase == "Draining":
        return JobWanted("drain", status.attempt) if status.drain in ("Queue", "Last") else None
    if migrate is None:
        return None
    if status.phase == "Backfilling":
        return JobWanted("backfill", status.attempt, status.candidate, (f"{migrate.rate:g}",))
    if status.phase == "Verifying":
        return JobWanted("verify", status.attempt, status.candidate, (str(spaces.get("new", "")),))
    if status.phase == "Switching":
        return JobWanted("activate", status.attempt, status.candidate, (str(spaces.get("new", "")),))
    if status.phase == "RollingBack" and status.switched:
        return JobWanted("reactivate", status.attempt, status.stable, (str(spaces.get("old", "")),))
    if status.phase == "Restoring":
        return JobWanted("restore", status.attempt, status.stable, (f"{migrate.rate:g}",))
    if status.phase == "Dropping":
        return JobWanted("drop", status.attempt, None, (status.dropping,))
    return None
