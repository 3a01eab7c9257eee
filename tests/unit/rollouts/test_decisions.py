"""Decisions: whatever is observed, nothing is promoted without its gates, and an abort always ends at stable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill_rollouts.decisions import decide
from feedmill_rollouts.moves import approval
from feedmill_rollouts.observed import Decision, JobSeen, Observation
from feedmill_rollouts.spec import Model, Spec, parse_spec
from feedmill_rollouts.status import FINAL, Check, Status
from feedmill_rollouts.wishes import desired

OLD = Model("pkg://old")
START = datetime(2026, 1, 1, tzinfo=UTC)


def toxic_spec(**changes: Any) -> Spec:
    spec: dict[str, Any] = {
        "worker": "toxic",
        "targetRef": {"name": "shop-toxic"},
        "model": {"uri": "pkg://new"},
        "strategy": {
            "shadow": {"hold": "1m"},
            "canary": [{"share": 5, "hold": "2m"}, {"share": 50, "hold": "1m", "manual": True}],
        },
        "analysis": {"failureLimit": 1, "inconclusiveLimit": 3, "interval": "30s"},
    }
    return parse_spec({**spec, **changes})


def encode_spec(**migrate: Any) -> Spec:
    return parse_spec(
        {
            "worker": "encode",
            "targetRef": {"name": "shop-encode"},
            "model": {"uri": "pkg://new"},
            "strategy": {"migrate": {"keepOld": "10m", "coverage": 0.999, "recall": 0.9, **migrate}},
        }
    )


SPECS = [toxic_spec(), encode_spec(), encode_spec(manual=True)]


@dataclass
class Run:
    """A rollout and its story, driven by observations."""

    spec: Spec
    status: Status = field(default_factory=Status)
    now: datetime = START
    story: list[Decision] = field(default_factory=list)

    def see(self, seen: Observation, seconds: float = 10) -> Decision:
        self.now += timedelta(seconds=seconds)
        # Through JSON and back, as between two looks of the operator, or two operators.
        decision = decide(self.spec, Status.parse(self.status.to_json()), seen, self.now)
        self.status = decision.status
        self.story.append(decision)
        return decision

    def phases(self) -> list[str]:
        found: list[str] = []
        for decision in self.story:
            if not found or found[-1] != decision.status.phase:
                found.append(decision.status.phase)
        return found

    def until(self, *phases: str, answer: dict[str, Any] | None = None, **other: Any) -> None:
        """Let the cluster do at once whatever is asked of it, until one of the phases is reached."""
        for _ in range(400):
            self.see(self.world(answer, **other))
            if self.status.phase in phases:
                return
        raise AssertionError(f"{self.status.phase}: {self.status.message}, expected {phases}")

    def world(self, answer: dict[str, Any] | None = None, **other: Any) -> Observation:
        """A cluster where everything that is wanted is so, and every check passes."""
        wanted = desired(self.spec, self.status)
        model = wanted.stable_model
        given_answer = {"space": "new", "coverage": 1.0, "recall": 0.99, "overlap": 0.4, "active": "old"} | (
            answer or {}
        )
        seen = Observation(
            target_found=True,
            stable_model=OLD,
            stable_ready=True,
            promoted_key=model.key if model else "",
            routing_confirmed=True,
            candidate_ready=wanted.candidate is not None,
            candidate_gone=not wanted.keeps_candidate,
            can_make_jobs=True,
            is_halted=True,
            check=Check("Pass", "fine", self.now),
            job=JobSeen("succeeded", given_answer) if wanted.job else JobSeen(),
            approved=approval(self.status),
        )
        return replace(seen, **other)


checks = st.one_of(
    st.none(),
    st.builds(Check, st.sampled_from(["Pass", "Fail", "Inconclusive"]), st.just("r"), st.just(START)),
)
numbers = st.one_of(st.none(), st.sampled_from(["x", True]), st.floats(0, 1))
answers = st.fixed_dictionaries(
    {},
    optional={"space": st.sampled_from(["new", ""]), "coverage": numbers, "recall": numbers, "active": st.just("old")},
)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    return Observation(
        target_found=draw(st.integers(0, 9)) > 0,
        stable_model=OLD,
        stable_ready=draw(st.booleans()),
        promoted_key=draw(st.sampled_from(["", OLD.key, Model("pkg://new").key])),
        routing_confirmed=draw(st.booleans()),
        candidate_ready=draw(st.booleans()),
        candidate_gone=draw(st.booleans()),
        can_make_jobs=draw(st.integers(0, 9)) > 0,
        is_halted=draw(st.booleans()),
        check=draw(checks),
        job=JobSeen(draw(st.sampled_from(["absent", "running", "succeeded", "failed"])), draw(answers)),
    )


events = st.lists(st.tuples(observations(), st.integers(1, 400), st.booleans(), st.booleans()), max_size=60)


def mostly(spec: Spec, happenings: list[tuple[Observation, int, bool, bool]]) -> Run:
    """A run through a world that mostly does what it is asked for, so that the late phases are reached as well."""
    run = Run(spec)
    for seen, gap, is_random, is_approved in happenings:
        if is_random:
            run.see(replace(seen, approved=approval(run.status) if is_approved else ""), gap)
        else:
            run.see(run.world(check=seen.check, approved=approval(run.status) if is_approved else ""), gap)
    return run


@given(st.sampled_from(SPECS), events)
@settings(max_examples=150, deadline=None)
def test_nothing_is_promoted_without_its_gates(
    spec: Spec, happenings: list[tuple[Observation, int, bool, bool]]
) -> None:
    run = mostly(spec, happenings)
    before = Status()
    for decision in run.story:
        after = decision.status
        if after.promoted and not before.promoted:
            if spec.worker == "toxic":
                assert before.phase == "Canary"
                assert before.step == len(spec.steps) - 1  # the last step, which asks for approval
                assert after.checks[-1].verdict == "Pass"
                assert before.routed_at is not None
                assert (after.phase_at or START) - before.routed_at >= timedelta(minutes=1)
            else:
                assert before.phase == "Switching"
                assert before.spaces["coverage"] >= 0.999
                assert before.spaces["recall"] >= 0.9
        if after.step > before.step:
            assert after.checks[-1].verdict == "Pass"
            held = spec.steps[before.step].hold_seconds
            assert before.routed_at is not None
            assert run_gap(run, decision, before) >= held
        if decision.desired.stable_model is not None and not after.promoted:
            assert decision.desired.stable_model.key != spec.model.key or after.phase == "Completed"
        before = after


def run_gap(run: Run, decision: Decision, before: Status) -> float:
    at = decision.status.phase_at
    assert at is not None
    assert before.routed_at is not None
    return (at - before.routed_at).total_seconds()


@given(st.sampled_from(SPECS), events)
@settings(max_examples=150, deadline=None)
def test_a_share_never_exceeds_the_step_and_only_a_canary_gets_one(
    spec: Spec, happenings: list[tuple[Observation, int, bool, bool]]
) -> None:
    for decision in mostly(spec, happenings).story:
        routing, status = decision.desired.routing, decision.status
        if routing is None or routing.mode == "off":
            continue
        if spec.worker == "encode":
            assert routing.mode == "mirror"  # two encoders never share the posts
        elif routing.mode == "share":
            assert status.phase in ("Canary", "Promoting")
            number = min(status.step, len(spec.steps) - 1)
            assert routing.share_percent <= spec.steps[number].share_percent
        else:
            assert status.phase == "Shadow"


@given(st.sampled_from(SPECS), events)
@settings(max_examples=150, deadline=None)
def test_an_abort_always_ends_at_stable(spec: Spec, happenings: list[tuple[Observation, int, bool, bool]]) -> None:
    run = mostly(spec, happenings)
    if run.status.phase in ("", "Pending", "Completed", "Draining", "Retaining", "Dropping"):
        return
    rollout = run.status.rollout_id
    run.until("Aborted", "Completed", aborted=rollout)
    if run.status.phase == "Completed":
        assert "Draining" in run.phases()
        return
    wanted = desired(spec, run.status)
    assert run.status.stable == OLD
    assert wanted.stable_model in (None, OLD)
    assert wanted.routing is not None
    assert wanted.routing.mode == "off"
    assert not wanted.keeps_candidate
    assert run.status.history[0]["outcome"] == "Aborted"
    ended = run.status.ended_at
    for _ in range(3):
        run.see(run.world(), 100)
    assert (run.status.phase, run.status.ended_at) == ("Aborted", ended)


@given(st.sampled_from(SPECS), events)
@settings(max_examples=100, deadline=None)
def test_deciding_again_changes_nothing(spec: Spec, happenings: list[tuple[Observation, int, bool, bool]]) -> None:
    """No patch storm: with nothing new to see, a status settles after a few looks at one and the same moment."""
    run = mostly(spec, happenings)
    quiet = replace(run.world(), check=None, job=JobSeen("running"), stable_ready=False, candidate_ready=False,
                    routing_confirmed=False, candidate_gone=False, approved="")  # fmt: skip
    for _ in range(3):
        run.see(quiet, 0)
    settled = run.status
    assert run.see(quiet, 0).status.to_json() == settled.to_json()
    assert run.story[-1].events == ()


@given(events)
@settings(max_examples=100, deadline=None)
def test_without_data_a_rollout_goes_back(happenings: list[tuple[Observation, int, bool, bool]]) -> None:
    spec = toxic_spec()
    run = mostly(spec, happenings)
    if run.status.phase not in ("Shadow", "Canary"):
        return
    for _ in range(40):
        run.see(run.world(check=Check("Inconclusive", "no data", run.now)), 60)
    assert run.status.phase == "Aborted"


def test_a_good_rollout_of_a_classifier_goes_through_its_steps() -> None:
    run = Run(toxic_spec())
    run.until("Completed")
    assert run.phases() == ["Pending", "Starting", "Shadow", "Canary", "Promoting", "Draining", "Completed"]
    shares = {d.desired.routing.share_percent for d in run.story if d.desired.routing}
    assert shares == {0, 5, 50}
    assert run.status.stable == Model("pkg://new")
    assert [entry["outcome"] for entry in run.status.history] == ["Completed"]
    generations = [d.desired.routing.generation for d in run.story if d.desired.routing]
    assert generations == sorted(generations)


def test_a_step_that_wants_approval_waits_for_its_own() -> None:
    run = Run(toxic_spec())
    for _ in range(100):
        run.see(run.world(approved="somebody-else"))
    assert (run.status.phase, run.status.step) == ("Canary", 2)
    assert approval(run.status) in run.status.message
    run.until("Completed")


def test_a_good_migration_switches_once_and_drops_the_old_space_after_its_time() -> None:
    run = Run(encode_spec())
    run.until("Retaining")
    switched = run.now
    run.until("Completed")
    assert run.phases() == [
        "Pending", "Starting", "Mirroring", "Backfilling", "Verifying", "Switching", "Promoting", "Draining",
        "Retaining", "Dropping", "Completed",
    ]  # fmt: skip
    assert run.now - switched >= timedelta(minutes=10)
    jobs = [d.desired.job.kind for d in run.story if d.desired.job]
    assert list(dict.fromkeys(jobs)) == ["backfill", "verify", "activate", "drain", "drop"]


@pytest.mark.parametrize(
    ("phase", "jobs"),
    [
        ("Starting", ["drain"]),
        ("Mirroring", ["drain"]),
        ("Backfilling", ["drain"]),
        ("Verifying", ["drain"]),
        ("Switching", ["reactivate", "drain", "restore"]),
        ("Promoting", ["reactivate", "drain", "restore"]),
    ],
)
def test_a_migration_turns_back_from_everywhere(phase: str, jobs: list[str]) -> None:
    run = Run(encode_spec())
    run.until(phase)
    mark = len(run.story)
    run.until("Aborted", aborted=run.status.rollout_id)
    asked = [d.desired.job.kind for d in run.story[mark:] if d.desired.job]
    assert list(dict.fromkeys(asked)) == jobs
    assert run.status.stable == OLD


def test_too_little_coverage_runs_the_backfill_again_and_too_little_recall_goes_back() -> None:
    run = Run(encode_spec())
    run.until("Verifying")
    run.see(run.world({"coverage": 0.99}))
    assert (run.status.phase, run.status.attempt) == ("Backfilling", 1)
    run.until("Aborted", answer={"recall": 0.5})
    assert run.status.reason == "RecallTooLow"
    assert "recall 0.500 is below 0.9" in run.status.message


def test_a_new_model_in_the_middle_starts_again_from_stable() -> None:
    run = Run(toxic_spec())
    run.until("Canary")
    run.spec = toxic_spec(model={"uri": "pkg://newer"})
    run.until("Starting")
    assert run.phases()[-3:] == ["Draining", "Aborted", "Starting"]
    assert run.status.history[0]["reason"] == "Superseded"
    run.until("Completed")
    assert run.status.stable == Model("pkg://newer")


def test_a_pause_stops_the_hold() -> None:
    run = Run(toxic_spec())
    run.until("Shadow")
    run.see(run.world())
    run.see(run.world())
    run.spec = replace(run.spec, paused=True)
    run.see(run.world(), 1)
    for _ in range(5):
        run.see(run.world(), 600)
    assert run.status.phase == "Shadow"
    run.spec = replace(run.spec, paused=False)
    run.see(run.world(), 1)
    run.see(run.world(), 1)
    assert run.status.phase == "Shadow"
    run.until("Canary")


def test_an_aborted_rollout_stays_until_it_is_tried_again() -> None:
    run = Run(toxic_spec())
    run.until("Canary")
    first = run.status.rollout_id
    run.until("Aborted", aborted=first)
    run.see(run.world(aborted=first), 10_000)
    assert run.status.phase == "Aborted"
    run.until("Starting", aborted=first, retried=first)
    assert run.status.rollout_id != first
    run.until("Completed", aborted=first, retried=first)


def test_back_to_a_model_that_has_served_before_takes_no_steps() -> None:
    run = Run(toxic_spec())
    run.until("Completed")
    served = run.status.rollout_id
    run.spec = toxic_spec(model={"uri": "pkg://newer"})
    run.until("Starting")
    run.until("Completed")
    run.spec = toxic_spec(model={"uri": "pkg://newer"}, rollbackTo=served)
    mark = len(run.story)
    run.until("Promoting")
    assert len(run.story) - mark <= 2
    run.until("Completed")
    assert run.status.stable == Model("pkg://new")


def test_a_target_that_goes_away_ends_the_rollout() -> None:
    run = Run(toxic_spec())
    run.until("Canary")
    for _ in range(1000):
        run.see(Observation(candidate_gone=True, is_halted=True), 10)
        if run.status.phase in FINAL:
            break
    assert run.status.phase == "Aborted"
    missing = Run(toxic_spec())
    missing.see(Observation())
    assert missing.status.phase == "Pending"
    assert "shop-toxic is not there" in missing.status.message


def test_the_model_that_runs_already_needs_no_rollout() -> None:
    run = Run(toxic_spec(model={"uri": "pkg://old"}))
    run.until("Completed")
    assert run.phases() == ["Pending", "Completed"]
    assert desired(run.spec, run.status).stable_model is None
