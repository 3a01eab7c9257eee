"""What labels mean: names known from the hub, settings, thresholds, verdicts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.errors import SettingsError
from feedmill.models.labels import LabelPolicy, choose_kind, label_policy
from feedmill.settings import ModelSettings

JIGSAW = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
VIHATE = ("CLEAN", "OFFENSIVE", "HATE")


def policy(labels: tuple[str, ...], kind: Any = "single", **settings: Any) -> LabelPolicy:
    return label_policy(labels, kind, ModelSettings(**settings))


@pytest.mark.parametrize(
    ("labels", "toxic"),
    [
        (JIGSAW, set(JIGSAW)),
        (VIHATE, {"OFFENSIVE", "HATE"}),
        (("NONE", "TOXIC"), {"TOXIC"}),
        (("non-toxic", "toxic"), {"toxic"}),
        (("neutral", "toxic"), {"toxic"}),
        (("nothate", "hate"), {"hate"}),
        (("Not Toxic", "Hate Speech"), {"Hate Speech"}),
        (("clean", "rude", "weird"), {"rude", "weird"}),
        # Of a model that names groups of people too, they are reported, and no verdict follows from them.
        (("toxicity", "insult", "female", "muslim"), {"toxicity", "insult"}),
    ],
)
def test_known_names(labels: tuple[str, ...], toxic: set[str]) -> None:
    assert policy(labels).toxic == toxic


def test_settings_name_labels_whatever_their_case() -> None:
    assert policy(("LABEL_0", "LABEL_1"), toxic_labels="label_1").toxic == {"LABEL_1"}
    assert policy(("LABEL_0", "LABEL_1"), clean_labels="Label 0").toxic == {"LABEL_1"}
    assert policy(VIHATE, toxic_labels="hate").toxic == {"HATE"}


@pytest.mark.parametrize(
    ("labels", "settings", "told"),
    [
        (("LABEL_0", "LABEL_1"), {}, "FEEDMILL_TOXIC_LABELS: the model's labels 'LABEL_0', 'LABEL_1'"),
        (("red", "green"), {}, "FEEDMILL_TOXIC_LABELS"),
        (("clean", "neutral"), {}, "FEEDMILL_TOXIC_LABELS"),
        (JIGSAW, {"toxic_labels": "toxic, rude"}, "FEEDMILL_TOXIC_LABELS: the model has no label 'rude'"),
        (VIHATE, {"clean_labels": "harmless"}, "FEEDMILL_CLEAN_LABELS: the model has no label 'harmless'"),
        (VIHATE, {"toxic_labels": "HATE", "clean_labels": "hate"}, "'HATE' in both"),
        (VIHATE, {"label_thresholds": {"hat": 0.4}}, "FEEDMILL_LABEL_THRESHOLDS: the model has no label 'hat'"),
        (VIHATE, {"label_thresholds": {"CLEAN": 0.4}}, "FEEDMILL_LABEL_THRESHOLDS: 'CLEAN' not toxic"),
    ],
)
def test_settings_that_do_not_fit(labels: tuple[str, ...], settings: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=r"expected") as caught:
        policy(labels, **settings)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("problem_type", "labels", "kind"),
    [
        ("multi_label_classification", JIGSAW, "multi"),
        ("single_label_classification", VIHATE, "single"),
        (None, JIGSAW, "multi"),
        (None, VIHATE, "single"),
        (None, ("toxic",), "multi"),
        (None, ("LABEL_0", "LABEL_1"), "single"),
        ("single_label_classification", ("toxic",), "multi"),
    ],
)
def test_kind(problem_type: str | None, labels: tuple[str, ...], kind: str) -> None:
    assert choose_kind(problem_type, labels) == kind


def scores(**given: float) -> dict[str, float]:
    return dict.fromkeys(JIGSAW, 0.1) | given


def test_multi_label_takes_one_label_over_its_threshold() -> None:
    judge = policy(JIGSAW, "multi", threshold=0.6, label_thresholds={"threat": 0.3})
    assert not judge.is_toxic(scores(toxic=0.59))
    assert judge.is_toxic(scores(toxic=0.6))
    assert judge.is_toxic(scores(threat=0.3))
    assert not judge.is_toxic(scores(threat=0.29, insult=0.5))


def test_single_label_adds_the_toxic_shares() -> None:
    assert policy(VIHATE).is_toxic({"CLEAN": 0.4, "OFFENSIVE": 0.35, "HATE": 0.25})
    assert not policy(VIHATE).is_toxic({"CLEAN": 0.6, "OFFENSIVE": 0.2, "HATE": 0.2})


def test_single_label_with_a_threshold_of_its_own_stays_out_of_the_sum() -> None:
    judge = policy(VIHATE, label_thresholds={"OFFENSIVE": 0.9})
    assert not judge.is_toxic({"CLEAN": 0.3, "OFFENSIVE": 0.6, "HATE": 0.1})
    assert judge.is_toxic({"CLEAN": 0.05, "OFFENSIVE": 0.92, "HATE": 0.03})


def test_thresholds_of_the_model_give_way_to_the_settings() -> None:
    own = {"toxic": 0.7, "threat": 0.2}
    assert label_policy(JIGSAW, "multi", ModelSettings(), own).thresholds == own
    chosen = ModelSettings(label_thresholds={"threat": 0.9})
    assert label_policy(JIGSAW, "multi", chosen, own).thresholds == {"toxic": 0.7, "threat": 0.9}
    assert label_policy(JIGSAW, "multi", ModelSettings(threshold=0.5), own).thresholds == {}
    only_insults = ModelSettings(toxic_labels=("insult",))
    assert label_policy(JIGSAW, "multi", only_insults, own).thresholds == {}


def test_rounding_keeps_the_order_of_the_labels() -> None:
    rounded = policy(VIHATE).rounded({"HATE": 0.123456, "CLEAN": 0.8, "OFFENSIVE": 0.076544})
    assert list(rounded.items()) == [("CLEAN", 0.8), ("OFFENSIVE", 0.0765), ("HATE", 0.1235)]


@given(
    st.fixed_dictionaries({label: st.floats(0, 1) for label in JIGSAW}),
    st.sampled_from(JIGSAW),
    st.floats(0, 1),
)
def test_a_higher_score_never_makes_a_text_clean(given: dict[str, float], label: str, higher: float) -> None:
    judge = policy(JIGSAW, "multi", label_thresholds={"threat": 0.3})
    raised = given | {label: max(given[label], higher)}
    assert judge.is_toxic(raised) or not judge.is_toxic(given)
