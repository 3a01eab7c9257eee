"""The whole story on a real cluster, in order: install, use, scale, restart, upgrade, scale from zero, remove.

Run by `make e2e`. Needs KUBECONFIG, and the images in the nodes or in a registry: E2E_REGISTRY, E2E_TAG. The tests
build on each other; after the first failure the rest is skipped, and the namespace stays for looking into it.
"""

from __future__ import annotations

import os

import pytest

from cluster.stage import Stage, cluster_named

pytestmark = [
    pytest.mark.skipif(not cluster_named(), reason="KUBECONFIG names no cluster"),
    pytest.mark.usefixtures("_in_order"),
]
NAMESPACE = os.environ.get("E2E_NAMESPACE", "feedmill-e2e")
LOAD = 10_000  # long enough for a new pod to start meanwhile


def test_an_installation_becomes_ready(stage: Stage) -> None:
    stage.given_an_empty_namespace_that_enforces_restricted_pods()
    stage.when_helm_installs_it()
    stage.then_ready()


def test_helm_test_sends_a_message_through_each_worker(stage: Stage) -> None:
    stage.when_helm_test_runs()


def test_a_load_is_answered(stage: Stage) -> None:
    stage.given_a_producer_in_the_cluster()
    stage.when_sent("toxic", LOAD)
    stage.then_everything_is_answered("toxic")


def test_kubectl_scale_outlasts_an_upgrade(stage: Stage) -> None:
    stage.when_scaled("toxic", 2)
    stage.then_ready("toxic")
    stage.when_helm_installs_it(toxic={"podAnnotations": {"e2e": "upgraded"}})
    stage.then_ready("toxic")
    assert stage.replicas("toxic") == 2


def test_a_rolling_restart_under_load_loses_nothing(stage: Stage) -> None:
    stage.when_sent("toxic", LOAD)
    stage.when_restarted("toxic")
    stage.then_ready("toxic")
    stage.then_everything_is_answered("toxic")


def test_another_model_setting_rolls_out_under_load(stage: Stage) -> None:
    stage.when_sent("toxic", LOAD)
    stage.when_helm_installs_it(toxic={"model": {"settings": {"FEEDMILL_THRESHOLD": 0.9}}})
    stage.then_ready("toxic")
    stage.then_everything_is_answered("toxic")


def test_keda_scales_to_zero_out_and_back(stage: Stage) -> None:
    if not stage.has_api("keda.sh"):
        pytest.skip("no KEDA in this cluster")
    quick = {"scaleDown": {"stabilizationWindowSeconds": 5}}
    scaling = {"enabled": True, "maxReplicas": 3, "pollingIntervalSeconds": 5, "cooldownPeriodSeconds": 10}
    stage.when_helm_installs_it(toxic={"autoscaling": {**scaling, "queueLength": 500, "behavior": quick}})
    stage.then_replicas_become("toxic", lambda count: count == 0, 180)
    stage.when_sent("toxic", 2 * LOAD)
    stage.then_replicas_become("toxic", lambda count: count >= 2, 180)
    stage.then_everything_is_answered("toxic")
    stage.then_replicas_become("toxic", lambda count: count == 0, 300)


def test_an_uninstallation_leaves_nothing(stage: Stage) -> None:
    stage.when_removed()
    stage.then_nothing_is_left()
