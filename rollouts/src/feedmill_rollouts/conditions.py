"""Conditions as Kubernetes has them: a time stamp changes only with the status, and each says for which generation."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from feedmill_rollouts.observed import Observation
from feedmill_rollouts.spec import Spec
from feedmill_rollouts.status import FINAL, Status, stamp


def with_conditions(spec: Spec | None, status: Status, seen: Observation, generation: int, now: datetime) -> Status:
    """``status`` with the conditions that follow from it. ``spec`` is None where it can't be followed."""
    last = status.checks[-1] if status.checks else None
    is_running = status.phase not in FINAL and status.phase not in ("", "Pending")
    health = {"Pass": "True", "Fail": "False"}.get(last.verdict if last else "", "Unknown")
    wanted = [
        ("SpecValid", "True" if spec else "False", "Valid" if spec else "Invalid", "" if spec else status.message),
        ("TargetFound", _truth(seen.target_found), "Found" if seen.target_found else "NotFound", ""),
        ("Progressing", _truth(is_running), status.phase or "Pending", status.message),
        ("Healthy", health, last.verdict if last else "NotChecked", last.reason if last else ""),
        ("Paused", _truth(bool(spec and spec.paused)), "Asked" if spec and spec.paused else "NotAsked", ""),
        ("Completed", _truth(status.phase == "Completed"), status.reason or "NotEnded", status.message),
    ]
    known = {str(entry.get("type")): entry for entry in status.conditions}
    conditions = []
    for kind, truth, reason, message in wanted:
        before = known.get(kind, {})
        since = before.get("lastTransitionTime") if before.get("status") == truth else None
        conditions.append(
            {
                "type": kind,
                "status": truth,
                "reason": reason,
                "message": message,
                "observedGeneration": generation,
                "lastTransitionTime": since or stamp(now),
            }
        )
    return replace(status, conditions=tuple(conditions), observed_generation=generation)


def _truth(value: bool) -> str:
    return "True" if value else "False"
