"""Rollouts on a real cluster, in order: a good canary, a bad one that goes back by itself, an encoder's migration.

Run by `make e2e`, in a namespace of their own. Two models have to be in the workers' images or within their reach:
E2E_TOXIC_MODEL and E2E_ENCODE_MODEL, as spec.model.uri takes them; what they name must load. By default the canary
has the model that serves, with another threshold, and the migration is skipped.
"""

from __future__ import annotations

import os

import pytest

from cluster.stage import Stage, cluster_named

pytestmark = [
    pytest.mark.skipif(not cluster_named(), reason="KUBECONFIG names no cluster"),
    pytest.mark.usefixtures("_in_order"),
]
NAMESPACE = os.environ.get("E2E_ROLLOUTS_NAMESPACE", "feedmill-e2e-rollouts")
TOXIC_MODEL = os.environ.get("E2E_TOXIC_MODEL", "")
ENCODE_MODEL = os.environ.get("E2E_ENCODE_MODEL", "")
BATCH = 500
ANALYSIS = {"interval": "15s", "minimumSamples": 20, "latencyRatio": 20}


def test_a_good_canary_is_promoted_and_every_message_is_answered(stage: Stage) -> None:
    stage.given_an_empty_namespace_that_enforces_restricted_pods()
    stage.when_helm_installs_it()
    stage.then_ready()
    stage.given_a_producer_in_the_cluster()
    stage.when_a_rollout_is_wanted(
        "toxic",
        model={"uri": TOXIC_MODEL, "settings": {"FEEDMILL_THRESHOLD": "0.99"}},
        strategy={"canary": [{"share": 20, "hold": "30s"}]},
        analysis={**ANALYSIS, "labelDrift": 1},
    )
    stage.then_the_rollout_becomes("toxic", "Canary")
    stage.when_messages_come_until("toxic", "Completed", batch=BATCH)
    stage.then_ready("toxic")
    stage.then_there_is_no_candidate("toxic")


def test_helm_does_not_reset_what_was_promoted(stage: Stage) -> None:
    stage.when_helm_installs_it(toxic={"podAnnotations": {"e2e": "upgraded"}})
    stage.then_ready("toxic")
    stage.then_the_rollout_becomes("toxic", "Completed")
    stage.then_the_operator_owns_the_models_annotation("toxic")


def test_a_bad_canary_goes_back_by_itself(stage: Stage) -> None:
    stage.when_a_rollout_is_wanted(
        "toxic",
        model={"uri": TOXIC_MODEL, "settings": {"FEEDMILL_THRESHOLD": "0.000001"}},  # everything is toxic
        strategy={"canary": [{"share": 20, "hold": "30s"}]},
        analysis={**ANALYSIS, "labelDrift": 0.05},
    )
    stage.then_the_rollout_becomes("toxic", "Canary")
    stage.when_messages_come_until("toxic", "Aborted", batch=BATCH)
    assert stage.rollout("toxic")["status"]["reason"] == "AnalysisFailed"
    stage.then_there_is_no_candidate("toxic")


def test_a_bad_spec_is_refused_by_the_cluster(stage: Stage) -> None:
    stage.then_a_rollout_is_refused(
        "toxic", "expected shares that rise", strategy={"canary": [{"share": 50}, {"share": 5}]}
    )


def test_an_encoder_is_migrated(stage: Stage) -> None:
    if not ENCODE_MODEL:
        pytest.skip("E2E_ENCODE_MODEL names no second encoder")
    stage.when_sent("encode", 500)
    stage.then_everything_is_answered("encode")
    stage.when_a_rollout_is_wanted(
        "encode",
        model={"uri": ENCODE_MODEL},
        strategy={"migrate": {"rate": 200, "keepOld": "1m"}},
        analysis=ANALYSIS,
    )
    stage.then_the_rollout_becomes("encode", "Backfilling")
    stage.when_sent("encode", 500)
    stage.then_the_rollout_becomes("encode", "Retaining")
    stage.then_everything_is_answered("encode")
    stage.then_the_rollout_becomes("encode", "Completed")
    stage.then_there_is_no_candidate("encode")


def test_a_deleted_rollout_leaves_the_promoted_model(stage: Stage) -> None:
    stage.when_the_rollout_is_deleted("toxic")
    stage.then_ready("toxic")
    stage.when_sent("toxic", 100)
    stage.then_everything_is_answered("toxic")
    stage.when_removed()
