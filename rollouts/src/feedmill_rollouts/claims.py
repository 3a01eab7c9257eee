"""One target, one ModelRollout: where several name it, the one that is under way has it, else the oldest."""

from __future__ import annotations

from collections.abc import Sequence

from feedmill_rollouts.spec import JsonObject
from feedmill_rollouts.status import BEGINNING, FINAL


def claimed_by(rollout: JsonObject, others: Sequence[JsonObject]) -> str:
    """The name of the ModelRollout of ``others`` that has the target of ``rollout``; empty where that is itself."""
    mine = _target(rollout)
    same = [other for other in others if _target(other) == mine and _name(other) != _name(rollout)]
    first = min([rollout, *same], key=_rank)
    return "" if first is rollout else _name(first)


def _rank(rollout: JsonObject) -> tuple[bool, str, str]:
    return not _is_under_way(rollout), str(rollout["metadata"].get("creationTimestamp") or ""), _name(rollout)


def _is_under_way(rollout: JsonObject) -> bool:
    return ((rollout.get("status") or {}).get("phase") or "") not in FINAL | BEGINNING


def _target(rollout: JsonObject) -> str:
    """What it works on, or else what it is to work on."""
    if _is_under_way(rollout) and (target := (rollout.get("status") or {}).get("target")):
        return str(target)
    return str(((rollout.get("spec") or {}).get("targetRef") or {}).get("name") or "")


def _name(rollout: JsonObject) -> str:
    return str(rollout["metadata"]["name"])
