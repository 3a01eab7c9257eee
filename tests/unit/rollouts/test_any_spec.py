"""A ModelRollout's spec: whatever the cluster let in, it is followed, or refused with the field's name."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from feedmill_rollouts.spec import Spec, SpecError, parse_spec, read_spec

DURATIONS = st.sampled_from(["10m", "1h30m", "0s", "", "soon", "1y", "99999999d"])
SHARES = st.floats(-1, 101, allow_nan=False) | st.integers(-1, 101)
TEXTS = st.sampled_from(["", "shop-toxic", "shop-encode", "pkg://a", "hf://a/b", "hf://a/b@1", "file:///x", "1"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


# Of the types that the CRD's schema lets through; what they hold is anything.
STRATEGIES = some(
    shadow=some(hold=DURATIONS, manual=st.booleans()),
    canary=st.lists(some(share=SHARES, hold=DURATIONS, manual=st.booleans()), max_size=3),
    migrate=some(coverage=SHARES, recall=SHARES, keepOld=DURATIONS, rate=SHARES, hintRef=some(name=TEXTS)),
)
SPECS = some(
    worker=st.sampled_from(["toxic", "encode", "hint", ""]),
    targetRef=some(name=TEXTS),
    model=some(uri=TEXTS, revision=TEXTS, settings=st.dictionaries(TEXTS, TEXTS, max_size=2)),
    strategy=STRATEGIES,
    analysis=some(
        errorRate=SHARES, labelDrift=SHARES, latencyRatio=SHARES, interval=DURATIONS, minimumSamples=st.integers(0, 9)
    ),
    progressDeadline=DURATIONS,
    paused=st.booleans(),
    rollbackTo=TEXTS,
)


def parsed(spec: dict[str, Any]) -> Spec | SpecError:
    try:
        return parse_spec(spec)
    except SpecError as error:
        return error


@given(SPECS)
def test_any_spec_is_followed_or_refused_by_name(spec: dict[str, Any]) -> None:
    found = parsed(spec)
    if isinstance(found, SpecError):
        assert str(found).startswith("spec.")
        return
    assert found.target
    assert (found.worker == "encode") == (found.migrate is not None)
    shares = [step.share_percent for step in found.steps]
    assert shares == sorted(set(shares))
    assert parse_spec(json.loads(json.dumps(spec))).key == found.key


@given(SPECS, st.sampled_from(["toxic", "encode", ""]), st.sampled_from(["", "shop-toxic", "shop-encode"]))
def test_a_rollout_that_runs_is_never_left_without_a_spec_to_go_back_by(
    spec: dict[str, Any], worker: str, target: str
) -> None:
    found = read_spec(spec, worker, target)
    if worker and target:
        assert isinstance(found, Spec)
        assert (found.worker, found.target) == (worker, target)
    else:
        assert isinstance(found, (Spec, SpecError))
