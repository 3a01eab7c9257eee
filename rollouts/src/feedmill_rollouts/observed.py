"""What the decisions go by, and what they ask for: plain values between the cluster and :mod:`.decisions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from feedmill_rollouts.spec import Model
from feedmill_rollouts.status import Check, Status

JobKind = Literal["backfill", "verify", "activate", "reactivate", "restore", "drain", "drop"]
JobState = Literal["absent", "running", "succeeded", "failed"]


@dataclass(frozen=True, slots=True)
class JobSeen:
    """The phase's Job. ``answer`` is its last word, a JSON object."""

    state: JobState = "absent"
    answer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """The cluster, as far as a decision needs it. What could not be looked at is False, absent or None."""

    target_found: bool = False
    claimed_by: str = ""
    """Another ModelRollout that has the target; this one must touch nothing."""
    is_deleted: bool = False
    """The ModelRollout is being deleted."""
    stable_model: Model | None = None
    """What the target's pods are told to run."""
    chart_key: str = ""
    """The key of the model that the chart alone would give them."""
    stable_ready: bool = False
    """Every pod of the target runs the present template, and is ready (also where it is scaled to zero)."""
    promoted_key: str = ""
    """The model's key in the annotation that the operator owns on the target's pod template."""
    routing_confirmed: bool = False
    """Every pod of the target reports the routing's present generation (also where there are none)."""
    candidate_ready: bool = False
    """The candidate's Deployment runs the model and role that are asked for, at least one pod ready."""
    candidate_gone: bool = False
    check: Check | None = None
    """A check over a window that ended now, where one was due."""
    job: JobSeen = field(default_factory=JobSeen)
    can_make_jobs: bool = False
    """Whether there is a Deployment, the target or else the candidate, that a Job can be made from."""
    is_halted: bool = False
    """On the way back: no Job that leads forward runs any more, nor a pod of one."""
    backfill: Mapping[str, Any] = field(default_factory=dict)
    """``done`` and ``total`` posts, as the candidate's metrics tell."""
    approved: str = ""
    """The annotation by which a person approves a step."""
    aborted: str = ""
    """The annotation by which a person aborts a rollout."""
    retried: str = ""
    """The annotation by which a person starts an aborted rollout again."""


@dataclass(frozen=True, slots=True)
class RoutingWanted:
    """The routing file's content."""

    mode: Literal["off", "mirror", "share"] = "off"
    share_percent: float = 0.0
    generation: int = 0


@dataclass(frozen=True, slots=True)
class CandidateWanted:
    """A candidate's Deployment."""

    model: Model
    role: Literal["candidate", "shadow"]
    share_percent: float
    """Of the stable worker's replicas, rounded up."""


@dataclass(frozen=True, slots=True)
class JobWanted:
    """A Job from a worker's own image, named by rollout, kind and attempt: asked for twice, it is made once."""

    kind: JobKind
    attempt: int
    model: Model | None = None
    """The encoder to run as; None: as the target runs."""
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """How the cluster should be while the status is what it is. None: not the operator's concern now."""

    routing: RoutingWanted | None = None
    candidate: CandidateWanted | None = None
    keeps_candidate: bool = True
    """False: there must be no candidate."""
    stable_model: Model | None = None
    job: JobWanted | None = None
    is_halted: bool = False
    """True: no Job that leads forward may run; ``job`` is made only once none does."""


@dataclass(frozen=True, slots=True)
class Event:
    """For ``kubectl get events``."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The next status, what the cluster should be like then, and when to look again."""

    status: Status
    desired: Desired
    next_seconds: float
    events: tuple[Event, ...] = ()
    fault: str = ""
    """Why the spec can't be followed."""
