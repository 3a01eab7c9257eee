"""Conditions as Kubernetes has them: a time stamp changes only with the status, and each says for which generation."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from feedmill_rollouts.observed import Event, Observation
from feedmill_rollouts.status import BEGINNING, FINAL, Status, stamp


def with_conditions(
    status: Status, seen: Observation, generation: int, now: datetime, *, fault: str = "", is_paused: bool = False
) -> Status:
    """``status`` with the conditions that follow from it. ``fault``: why the spec can't be followed."""
    last = status.checks[-1] if status.checks else None
    is_running = status.phase not in FINAL | BEGINNING
    health = {"Pass": "True", "Fail": "False"}.get(last.verdict if last else "", "Unknown")
    other = seen.claimed_by
    claim = f"ModelRollout {other} has the Deployment; this one begins when that is gone" if other else ""
    wanted = [
        ("SpecValid", _truth(not fault), "Invalid" if fault else "Valid", fault),
        ("TargetFound", _truth(seen.target_found), "Found" if seen.target_found else "NotFound", ""),
        ("TargetClaimed", _truth(not other), "ClaimedByAnother" if other else "Claimed", claim),
        ("Progressing", _truth(is_running), status.phase or "Pending", status.message),
        ("Healthy", health, last.verdict if last else "NotChecked", last.reason if last else ""),
        ("Paused", _truth(is_paused), "Asked" if is_paused else "NotAsked", ""),
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


def condition_events(before: Status, after: Status) -> tuple[Event, ...]:
    """For what changes without a phase: a spec that can't be followed, a target that another has, a pause."""
    known, now = ({str(c.get("type")): c for c in status.conditions} for status in (before, after))

    def turned(kind: str, truth: str) -> bool:
        return (known.get(kind, {}).get("status"), now[kind]["status"]) == (_other(truth), truth)

    found = []
    for kind, reason in (("SpecValid", "InvalidSpec"), ("TargetClaimed", "ClaimedByAnother")):
        is_new = now[kind]["message"] != known.get(kind, {}).get("message")
        if now[kind]["status"] == "False" and is_new:
            found.append(Event("Warning", reason, now[kind]["message"]))
    if turned("SpecValid", "True"):
        found.append(Event("Normal", "ValidSpec", "the spec can be followed again"))
    if now["Paused"]["status"] == "True" and known.get("Paused", {}).get("status") != "True":
        found.append(Event("Normal", "Paused", f"paused in {after.phase or 'Pending'}; what is routed stays routed"))
    if turned("Paused", "False"):
        found.append(Event("Normal", "Resumed", f"goes on in {after.phase or 'Pending'}"))
    return tuple(found)


def _other(truth: str) -> str:
    return "False" if truth == "True" else "True"


def _truth(value: bool) -> str:
    return "True" if value else "False"
