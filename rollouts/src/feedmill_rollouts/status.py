"""``ModelRollout.status``, read and written. All that the operator remembers is in here: a restart resumes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from feedmill_rollouts.spec import JsonObject, Model, SpecError, parse_model

Phase = Literal[
    "",
    "Pending",
    "Starting",
    "Shadow",
    "Canary",
    "Mirroring",
    "Backfilling",
    "Verifying",
    "Switching",
    "Promoting",
    "RollingBack",
    "Draining",
    "Restoring",
    "Retaining",
    "Dropping",
    "Completed",
    "Aborted",
]
"""Draining ends both ways; Restoring fills the old space's gap after a switch back; Retaining keeps the old space;
Dropping also drops what an aborted or superseded rollout left, and leads back to where it came from."""

BEGINNING: frozenset[Phase] = frozenset({"", "Pending"})
FINAL: frozenset[Phase] = frozenset({"Completed", "Aborted"})
Verdict = Literal["Pass", "Fail", "Inconclusive"]

MAX_CHECKS = 5
MAX_HISTORY = 10


@dataclass(frozen=True, slots=True)
class Check:
    """One look at the candidate beside the stable worker, over one window."""

    verdict: Verdict
    reason: str
    at: datetime
    figures: Mapping[str, Any] = field(default_factory=dict)
    unreachable: tuple[str, ...] = ()
    """Pods whose metrics could not be read."""

    def to_json(self) -> JsonObject:
        found: JsonObject = {"verdict": self.verdict, "reason": self.reason, "at": stamp(self.at)}
        found |= {"figures": dict(self.figures)} if self.figures else {}
        return found | ({"unreachable": list(self.unreachable)} if self.unreachable else {})


@dataclass(frozen=True, slots=True)
class Status:
    """Times are UTC, to the second. ``stable`` is None until the target has been seen for the first time."""

    phase: Phase = ""
    rollout_id: str = ""
    observed_generation: int = 0
    stable: Model | None = None
    candidate: Model | None = None
    former: Model | None = None
    """While the old space is kept: the model to go back to with it."""
    worker: str = ""
    target: str = ""
    """What the rollout that runs began with: its way back must not need the present spec."""
    step: int = 0
    share: float = 0.0
    """Percent of the messages that are handed to the candidate."""
    outcome: Literal["", "Completed", "Aborted"] = ""
    """Where RollingBack and Draining lead to."""
    reason: str = ""
    """Why the rollout ended, or ends."""
    message: str = ""
    started_at: datetime | None = None
    phase_at: datetime | None = None
    """When the phase began, or last made progress."""
    routed_at: datetime | None = None
    """Since when the present step's messages reach the candidate: its hold counts from here."""
    paused_at: datetime | None = None
    ended_at: datetime | None = None
    passes: int = 0
    """Checks passed in this step, since the last that did not pass."""
    failures: int = 0
    inconclusives: int = 0
    checks: tuple[Check, ...] = ()
    checked_at: datetime | None = None
    promoted: bool = False
    """Whether the stable worker is to run the candidate's model."""
    owned: bool = False
    """Whether the operator has ever set the target's model: from then on it is the operator's to set."""
    runs: int = 0
    """Rollouts begun so far: part of each one's id, so that a second try never meets what the first left behind."""
    switched: bool = False
    """Whether the active space may have been switched in this rollout."""
    drain: Literal["", "Routing", "Candidate", "Queue", "Last"] = ""
    """How far Draining is. Last: the target is gone, and the Job is made from the candidate before that goes."""
    routing_generation: int = 0
    attempt: int = 0
    """Which run of the phase's Job it is."""
    backfill: Mapping[str, Any] = field(default_factory=dict)
    spaces: Mapping[str, Any] = field(default_factory=dict)
    """``old`` and ``new`` space, and what was measured of them."""
    leftovers: tuple[JsonObject, ...] = ()
    """Spaces of rollouts that were aborted or superseded, each with the time when it is to be dropped."""
    dropping: str = ""
    """The space that is being dropped."""
    conditions: tuple[JsonObject, ...] = ()
    history: tuple[JsonObject, ...] = ()

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Status:
        """What is null, or can't be read, is as if it were not there."""
        value = {name: entry for name, entry in value.items() if entry is not None}
        return cls(
            phase=value.get("phase", ""),
            rollout_id=str(value.get("rolloutId", "")),
            observed_generation=int(value.get("observedGeneration", 0)),
            stable=_model(value.get("stableModel")),
            candidate=_model(value.get("candidateModel")),
            former=_model(value.get("formerModel")),
            worker=str(value.get("worker", "")),
            target=str(value.get("target", "")),
            step=int(value.get("step", 0)),
            share=float(value.get("share", 0)),
            outcome=value.get("outcome", ""),
            reason=str(value.get("reason", "")),
            message=str(value.get("message", "")),
            started_at=moment(value.get("startedAt")),
            phase_at=moment(value.get("phaseAt")),
            routed_at=moment(value.get("routedAt")),
            paused_at=moment(value.get("pausedAt")),
            ended_at=moment(value.get("endedAt")),
            passes=int(value.get("passes", 0)),
            failures=int(value.get("failures", 0)),
            inconclusives=int(value.get("inconclusives", 0)),
            checks=tuple(_check(entry) for entry in value.get("checks") or []),
            checked_at=moment(value.get("checkedAt")),
            promoted=bool(value.get("promoted", False)),
            owned=bool(value.get("owned", False)),
            runs=int(value.get("runs", 0)),
            switched=bool(value.get("switched", False)),
            drain=value.get("drain", ""),
            routing_generation=int(value.get("routingGeneration", 0)),
            attempt=int(value.get("attempt", 0)),
            backfill=dict(value.get("backfill") or {}),
            spaces=dict(value.get("spaces") or {}),
            leftovers=tuple(dict(entry) for entry in value.get("leftovers") or []),
            dropping=str(value.get("dropping", "")),
            conditions=tuple(dict(entry) for entry in value.get("conditions") or []),
            history=tuple(dict(entry) for entry in value.get("history") or []),
        )

    def to_json(self) -> JsonObject:
        """Every field, None where it is unset: a merge patch then removes what an earlier status had."""
        return {
            "phase": self.phase or None,
            "rolloutId": self.rollout_id or None,
            "observedGeneration": self.observed_generation,
            "stableModel": _replaced(self.stable),
            "candidateModel": _replaced(self.candidate),
            "formerModel": _replaced(self.former),
            "worker": self.worker or None,
            "target": self.target or None,
            "step": self.step,
            "share": self.share,
            "outcome": self.outcome or None,
            "reason": self.reason or None,
            "message": self.message or None,
            "startedAt": _stamp(self.started_at),
            "phaseAt": _stamp(self.phase_at),
            "routedAt": _stamp(self.routed_at),
            "pausedAt": _stamp(self.paused_at),
            "endedAt": _stamp(self.ended_at),
            "passes": self.passes,
            "failures": self.failures,
            "inconclusives": self.inconclusives,
            "checks": [check.to_json() for check in self.checks[-MAX_CHECKS:]],
            "checkedAt": _stamp(self.checked_at),
            "promoted": self.promoted,
            "owned": self.owned,
            "runs": self.runs,
            "switched": self.switched,
            "drain": self.drain or None,
            "routingGeneration": self.routing_generation,
            "attempt": self.attempt,
            "backfill": dict(self.backfill) or None,
            "spaces": dict(self.spaces) or None,
            "leftovers": list(self.leftovers),
            "dropping": self.dropping or None,
            "conditions": list(self.conditions),
            "history": list(self.history[:MAX_HISTORY]),
        }


def _replaced(model: Model | None) -> JsonObject | None:
    """A merge patch merges objects: settings of a model before must go."""
    if model is None:
        return None
    return {"uri": model.uri, "revision": model.revision, "environment": _lines(model)}


def _lines(model: Model) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(model.settings.items())]


def _model(value: Mapping[str, Any] | None) -> Model | None:
    if value is None:
        return None
    settings = dict(line.split("=", 1) for line in value.get("environment") or [])
    try:
        return parse_model({"uri": value.get("uri"), "revision": value.get("revision"), "settings": settings}, "status")
    except SpecError:
        return None


def _check(value: Mapping[str, Any]) -> Check:
    at = moment(value.get("at")) or datetime.fromtimestamp(0, UTC)
    figures = dict(value.get("figures") or {})
    return Check(
        value.get("verdict", "Inconclusive"), str(value.get("reason", "")), at, figures,
        tuple(value.get("unreachable") or ()),
    )  # fmt: skip


def stamp(at: datetime) -> str:
    """As Kubernetes writes times."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(value: object) -> datetime | None:
    """A time as :func:`stamp` writes it; None for anything else."""
    try:
        return datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None


def _stamp(at: datetime | None) -> str | None:
    return stamp(at) if at else None
