"""``ModelRollout.spec``, read into small frozen values. The CRD's schema has checked it; this names what slipped.

Durations in the resource are text such as ``90s``, ``10m``, ``2h`` or ``1h30m``; here they are seconds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, cast

JsonObject = dict[str, Any]

WorkerName = Literal["toxic", "encode"]
StepKind = Literal["shadow", "canary"]

_DURATION = re.compile(r"(?:\d+[smhd])+")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class SpecError(Exception):
    """The spec can't be followed. The text names the field and what was expected."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as a worker is told of it."""

    uri: str
    revision: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The environment variables that make a worker run this model."""
        pinned = f"{self.uri}@{self.revision}" if self.revision else self.uri
        return {"FEEDMILL_MODEL": pinned, **dict(sorted(self.settings.items()))}

    @property
    def key(self) -> str:
        """A short fingerprint: equal for equal models and settings."""
        return _digest(self.environment())

    @property
    def title(self) -> str:
        return f"{self.uri}@{self.revision[:12]}" if self.revision else self.uri or "(the worker's default)"

    def to_json(self) -> JsonObject:
        found: JsonObject = {"uri": self.uri}
        if self.revision:
            found["revision"] = self.revision
        if self.settings:
            found["settings"] = dict(self.settings)
        return found


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a classifier's rollout. ``share_percent`` is 0 for a shadow, which handles nothing itself."""

    kind: StepKind
    share_percent: float
    hold_seconds: float
    manual: bool


@dataclass(frozen=True, slots=True)
class Migrate:
    """How an encoder's space is moved."""

    rate: float
    """Posts per second that the backfill encodes at most."""
    coverage: float
    """Share of the posts that must have a vector in the new space before the switch."""
    recall: float
    """Share of the exact nearest neighbours that the new index must find."""
    keep_seconds: float
    """How long the old space is kept after the switch."""
    manual: bool
    """Whether a person approves the switch."""
    hint_ref: str
    """The hint worker's Deployment, whose image measures the new index."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """When a candidate is good enough. Rates and drifts are shares from 0 to 1."""

    error_rate: float
    latency_ratio: float
    label_drift: float
    minimum_samples: int
    interval_seconds: float
    failure_limit: int
    inconclusive_limit: int


@dataclass(frozen=True, slots=True)
class Spec:
    """What is wanted: the model, and the way to it."""

    worker: WorkerName
    target: str
    model: Model
    steps: tuple[Step, ...]
    migrate: Migrate | None
    analysis: Analysis
    progress_deadline_seconds: float
    paused: bool
    rollback_to: str
    fault: str = ""
    """Why it can't be followed. It then tells only what a rollout that runs needs to go back."""

    @property
    def key(self) -> str:
        """Names what is wanted: another model or another way to it is another rollout, other limits are not."""
        steps = [[step.kind, step.share_percent, step.hold_seconds, step.manual] for step in self.steps]
        return _digest([self.worker, self.target, self.model.environment(), steps, self.rollback_to])[:8]


def parse_spec(spec: Mapping[str, Any]) -> Spec:
    """Raises SpecError."""
    worker = spec.get("worker")
    if worker not in ("toxic", "encode"):
        raise SpecError(f"spec.worker: expected toxic or encode, got {worker!r}")
    strategy = _object(spec, "strategy", "spec.")
    migrate = strategy.get("migrate")
    if worker == "toxic" and migrate is not None:
        raise SpecError("spec.strategy.migrate: expected none for toxic, it has no vectors")
    if worker == "encode" and (strategy.get("shadow") or strategy.get("canary")):
        raise SpecError("spec.strategy: expected migrate for encode, two encoders must not share the posts")
    target = str(_object(spec, "targetRef", "spec.").get("name") or "")
    if not target:
        raise SpecError("spec.targetRef.name: missing, expected the worker's Deployment")
    return Spec(
        worker=cast("WorkerName", worker),
        target=target,
        model=parse_model(_object(spec, "model", "spec."), "spec.model"),
        steps=_steps(strategy) if worker == "toxic" else (),
        migrate=_migrate(migrate or {}, target) if worker == "encode" else None,
        analysis=_analysis(spec.get("analysis") or {}),
        progress_deadline_seconds=seconds(spec.get("progressDeadline", "15m"), "spec.progressDeadline"),
        paused=bool(spec.get("paused", False)),
        rollback_to=str(spec.get("rollbackTo") or ""),
    )


def read_spec(spec: Mapping[str, Any], worker: str, target: str) -> Spec | SpecError:
    """The spec; where it can't be followed but a rollout of ``worker`` and ``target`` runs: what that needs to go back,
    with the fault. Else the error."""
    error: SpecError
    try:
        found = parse_spec(spec)
        if not target or (worker, target) == (found.worker, found.target):
            return found
        error = SpecError(f"spec.targetRef.name: expected {target}, it can't be changed while a rollout runs")
    except SpecError as refused:
        error = refused
    if worker not in ("toxic", "encode") or not target:
        return error
    return Spec(
        worker=cast("WorkerName", worker),
        target=target,
        model=Model(""),
        steps=(),
        migrate=_migrate({}, target) if worker == "encode" else None,
        analysis=_analysis({}),
        progress_deadline_seconds=900.0,
        paused=False,
        rollback_to="",
        fault=str(error),
    )


def parse_model(value: Mapping[str, Any], where: str) -> Model:
    """Raises SpecError."""
    uri, revision = str(value.get("uri") or ""), str(value.get("revision") or "")
    if revision and not uri.startswith("hf://"):
        raise SpecError(f"{where}.revision: expected none but for hf://, other models have their content's")
    if uri.startswith("hf://") and not revision and "@" not in uri:
        raise SpecError(f"{where}.revision: missing, expected one for an hf:// model")
    settings = value.get("settings") or {}
    return Model(uri, revision, {str(name): str(setting) for name, setting in settings.items()})


def seconds(value: object, where: str) -> float:
    """A duration such as ``1h30m`` in seconds. Raises SpecError."""
    text = str(value)
    if not _DURATION.fullmatch(text):
        raise SpecError(f"{where}: expected a duration such as 90s, 10m or 1h30m, got {text[:30]!r}")
    return float(sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text)))


def _steps(strategy: Mapping[str, Any]) -> tuple[Step, ...]:
    steps: list[Step] = []
    shadow = strategy.get("shadow")
    if shadow is not None:
        hold = seconds(shadow.get("hold", "10m"), "spec.strategy.shadow.hold")
        steps.append(Step("shadow", 0.0, hold, bool(shadow.get("manual", False))))
    for number, step in enumerate(strategy.get("canary") or []):
        where = f"spec.strategy.canary[{number}]"
        share = float(step.get("share", 0))
        if not 0 < share < 100:
            raise SpecError(f"{where}.share: expected more than 0 and less than 100 percent, got {share:g}")
        hold = seconds(step.get("hold", "10m"), f"{where}.hold")
        steps.append(Step("canary", share, hold, bool(step.get("manual", False))))
    if not steps:
        raise SpecError("spec.strategy: expected shadow, canary steps, or both")
    if any(one.share_percent >= other.share_percent for one, other in pairwise(steps)):
        raise SpecError("spec.strategy.canary: expected shares that rise")
    return tuple(steps)


def _migrate(value: Mapping[str, Any], target: str) -> Migrate:
    where = "spec.strategy.migrate"
    hint_ref = str((value.get("hintRef") or {}).get("name") or "") or re.sub(r"-encode$", "-hint", target)
    return Migrate(
        rate=float(value.get("rate", 50)),
        coverage=_share(value.get("coverage", 1.0), f"{where}.coverage"),
        recall=_share(value.get("recall", 0.95), f"{where}.recall"),
        keep_seconds=seconds(value.get("keepOld", "7d"), f"{where}.keepOld"),
        manual=bool(value.get("manual", False)),
        hint_ref=hint_ref,
    )


def _analysis(value: Mapping[str, Any]) -> Analysis:
    where = "spec.analysis"
    return Analysis(
        error_rate=_share(value.get("errorRate", 0.01), f"{where}.errorRate"),
        latency_ratio=float(value.get("latencyRatio", 1.5)),
        label_drift=_share(value.get("labelDrift", 0.05), f"{where}.labelDrift"),
        minimum_samples=int(value.get("minimumSamples", 100)),
        interval_seconds=seconds(value.get("interval", "1m"), f"{where}.interval"),
        failure_limit=int(value.get("failureLimit", 0)),
        inconclusive_limit=int(value.get("inconclusiveLimit", 10)),
    )


def _share(value: Any, where: str) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise SpecError(f"{where}: expected a share from 0 to 1, got {number:g}")
    return number


def _object(value: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = value.get(name)
    if not isinstance(found, Mapping):
        raise SpecError(f"{where}{name}: missing, expected an object")
    return found


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
