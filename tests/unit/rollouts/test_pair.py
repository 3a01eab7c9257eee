"""An encoder's model and the active space always belong together, whatever happens, and in whatever order.

A small world does what the decisions ask for, or fails at it, or is late, or did it and failed to say so; people abort,
want other models, write specs that can't be followed, pause, delete. The model that serves and the active space may
differ in the three phases that switch them, and at no other time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill_rollouts.decisions import decide
from feedmill_rollouts.farewell import _last_jobs, is_half_switched
from feedmill_rollouts.moves import approval
from feedmill_rollouts.objects import job_name
from feedmill_rollouts.observed import JobSeen, JobWanted, Observation
from feedmill_rollouts.spec import Model, Spec, read_spec
from feedmill_rollouts.status import FINAL, Status
from feedmill_rollouts.wishes import desired

OLD = Model("pkg://old")
SWITCHING = ("Switching", "Promoting", "RollingBack")
FORWARD = ("backfill", "verify", "activate")
START = datetime(2026, 1, 1, tzinfo=UTC)


def space_of(model: Model) -> str:
    return model.uri.removeprefix("pkg://")


def spec_of(model: str, **more: Any) -> dict[str, Any]:
    return {
        "worker": "encode",
        "targetRef": {"name": "shop-encode"},
        "model": {"uri": f"pkg://{model}"},
        "strategy": {"migrate": {"keepOld": "10m"}},
        **more,
    }


@dataclass
class Place:
    """The stable worker's model, the active space, the spaces that there are, and Jobs on their way."""

    raw: dict[str, Any] = field(default_factory=lambda: spec_of("new"))
    status: Status = field(default_factory=Status)
    now: datetime = START
    model: Model = OLD
    active: str = "old"
    spaces: set[str] = field(default_factory=lambda: {"old"})
    jobs: dict[str, tuple[JobWanted, JobSeen]] = field(default_factory=dict)
    has_target: bool = True
    has_candidate: bool = False
    aborted: str = ""
    known: set[str] = field(default_factory=set)
    """Spaces that the operator has heard of: a backfill that is stopped before it has answered names none."""
    story: list[str] = field(default_factory=list)

    def spec(self) -> Spec:
        found = read_spec(self.raw, self.status.worker, self.status.target)
        assert isinstance(found, Spec), found
        return found

    def look(self, *, is_deleted: bool = False, is_interrupted: bool = False) -> None:
        """One look of the operator; interrupted: it ends between the written status and what that asks for."""
        spec, status = self.spec(), Status.parse(self.status.to_json())
        wanted = desired(spec, status)
        running = [job for job, seen in self.jobs.values() if job.kind in FORWARD and seen.state == "running"]
        seen = Observation(
            target_found=self.has_target,
            is_deleted=is_deleted,
            stable_model=self.model,
            chart_key=OLD.key,
            stable_ready=True,
            promoted_key=self.model.key,
            routing_confirmed=self.has_target,
            candidate_ready=self.has_candidate,
            candidate_gone=not self.has_candidate,
            job=self.jobs[name][1] if (name := self.name(wanted.job)) in self.jobs else JobSeen(),
            can_make_jobs=self.has_target or self.has_candidate,
            is_halted=not running,
            approved=approval(status),
            aborted=self.aborted,
        )
        decision = decide(spec, status, seen, self.now)
        self.status = decision.status
        self.known |= {
            str(decision.status.spaces[which]) for which in ("old", "new") if which in decision.status.spaces
        }
        self.story.append(f"{self.status.phase}: {self.status.message}")
        if not is_interrupted:
            self.apply(spec)
        self.check()

    def name(self, job: JobWanted | None) -> str:
        return job_name("encode", self.status.rollout_id, job) if job else ""

    def apply(self, spec: Spec) -> None:
        wanted = desired(spec, self.status)
        if wanted.candidate is not None and self.has_target:
            self.has_candidate = True
        if wanted.stable_model is not None:
            self.model = wanted.stable_model
        if wanted.is_halted:
            self.jobs = {
                name: (job, seen) for name, (job, seen) in self.jobs.items()
                if job.kind not in FORWARD or seen.state != "running"
            }  # fmt: skip
        if wanted.job is not None and (self.has_target or self.has_candidate):
            self.jobs.setdefault(self.name(wanted.job), (wanted.job, JobSeen("running")))
        if not wanted.keeps_candidate:
            self.has_candidate = False

    def check(self) -> None:
        """What holds at every moment."""
        assert self.active in self.spaces, self.story
        if "see to it" in self.status.message:
            return  # target and candidate are gone: nobody can switch, and the message asks a person to
        if self.status.phase not in SWITCHING:
            assert space_of(self.model) == self.active, self.story

    def work(self, how: int) -> None:
        """The Jobs on their way: done, failed, done but failed to say so, or late."""
        for name, (job, seen) in list(self.jobs.items()):
            if seen.state == "running" and how != 3:
                answer = self.do(job) if how in (0, 2) else None
                is_good = how == 0 and answer is not None
                self.jobs[name] = (job, JobSeen("succeeded", answer or {}) if is_good else JobSeen("failed"))

    def do(self, job: JobWanted) -> dict[str, Any] | None:
        """What a Job does; None where it is refused, as the workers' own commands do."""
        argument = job.arguments[0] if job.arguments else ""
        if job.kind in ("backfill", "restore"):
            assert job.model is not None
            self.spaces.add(space_of(job.model))
            return {"space": space_of(job.model)}
        if job.kind == "verify":
            return {"coverage": 1.0, "recall": 0.99, "active": self.active}
        if job.kind in ("activate", "reactivate"):
            if argument not in self.spaces:
                return None
            self.active = argument
        if job.kind == "drop":
            if argument == self.active:
                return None
            self.spaces.discard(argument)
        return {"done": True}

    def settle(self) -> None:
        """From now on all goes well."""
        self.has_target, self.raw["paused"] = True, False
        for _ in range(300):
            self.now += timedelta(hours=1)
            self.look()
            self.work(0)
            if self.status.phase in FINAL and not self.status.leftovers:
                return
        raise AssertionError(self.story[-20:])

    def delete(self) -> None:
        """The ModelRollout's deletion, to its end, and the Jobs that it leaves."""
        rollout = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
        for _ in range(50):
            if not is_half_switched(rollout, self.status, START):
                break
            self.look(is_deleted=True)
            self.work(0)
        last = _last_jobs(self.spec(), self.status)
        self.jobs = {}  # they go with the ModelRollout
        assert space_of(self.model) == self.active, self.story
        for job in last:
            self.do(job)
        assert space_of(self.model) == self.active, self.story


happenings = st.lists(
    st.tuples(
        st.sampled_from(["", "", "", "", "", "abort", "new", "third", "old", "invalid", "pause", "go on", "target"]),
        st.sampled_from([0, 0, 0, 0, 1, 2, 3]),
        st.sampled_from([5, 30, 400]),
        st.booleans(),
    ),
    max_size=50,
)


def live(place: Place, what: list[tuple[str, int, int, bool]]) -> None:
    for event, how, seconds, is_interrupted in what:
        place.now += timedelta(seconds=seconds)
        if event == "abort":
            place.aborted = place.status.rollout_id
        elif event in ("new", "third", "old"):
            place.raw = spec_of(event)
        elif event == "invalid" and place.status.target:
            place.raw = spec_of("new", strategy={"canary": [{"share": 5}]})
        elif event in ("pause", "go on"):
            place.raw = {**place.raw, "paused": event == "pause"}
        elif event == "target":
            place.has_target = not place.has_target
        place.look(is_interrupted=is_interrupted and how == 3)
        place.work(how)
        place.check()


@given(happenings)
@settings(max_examples=150, deadline=None)
def test_model_and_active_space_belong_together(what: list[tuple[str, int, int, bool]]) -> None:
    place = Place()
    live(place, what)
    if "see to it" in place.status.message:
        return
    place.raw = spec_of("new")
    place.settle()
    assert space_of(place.model) == place.active
    assert place.spaces & place.known <= {place.active}, place.story


@given(happenings)
@settings(max_examples=100, deadline=None)
def test_a_deletion_at_any_moment_leaves_them_together(what: list[tuple[str, int, int, bool]]) -> None:
    place = Place()
    live(place, what)
    if "see to it" in place.status.message:
        return
    place.has_target = True
    place.delete()


@pytest.mark.parametrize("phase", ["Switching", "Promoting", "RollingBack", "Draining", "Restoring", "Retaining"])
def test_a_deletion_in_each_phase(phase: str) -> None:
    place = Place()
    for _ in range(60):
        place.look()
        if place.status.phase == phase:
            break
        if place.status.phase == "Promoting" and phase in ("RollingBack", "Restoring"):
            place.aborted = place.status.rollout_id
        place.work(0)
        place.now += timedelta(seconds=10)
    assert place.status.phase == phase
    place.delete()
