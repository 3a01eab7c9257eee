"""Whole rollouts against an emulated Kubernetes API: every look of the operator may be the first after a restart."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill_rollouts.cluster import ApiError, Cluster
from feedmill_rollouts.reconcile import CONFLICT_SECONDS
from support.kube import NAMESPACE, World, deployment, rollout, world


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in container["env"]}


async def test_a_good_rollout(toxic: World) -> None:
    await toxic.until_phase("Canary")
    container = toxic.get("deployments", "shop-toxic-candidate").raw["spec"]["template"]["spec"]["containers"][0]
    assert environment(container)["FEEDMILL_MODEL"] == "pkg://new_model"
    assert environment(container)["FEEDMILL_ROLE"] == "candidate"
    assert environment(container)["FEEDMILL_THRESHOLD"] == ""  # the chart's was made for the old model
    assert toxic.get("deployments", "shop-toxic-candidate").raw["spec"]["replicas"] == 1
    await toxic.until_phase("Completed")
    assert toxic.get("deployments", "shop-toxic-candidate") is None
    assert toxic.routing["mode"] == "off"
    assert toxic.get("configmaps", "shop-toxic-model-rollout").raw["data"] == {
        "FEEDMILL_MODEL": "pkg://new_model",
        "FEEDMILL_THRESHOLD": "",
    }
    template = toxic.get("deployments", "shop-toxic").raw["spec"]["template"]
    assert list(template["metadata"]["annotations"]) == ["feedmill.dev/model"]
    assert toxic.status["history"][0]["outcome"] == "Completed"
    assert toxic.status["backfill"]["drained"] == {"returned": 3, "dropped": 0}
    assert ("Normal", "Promoting") in toxic.events()
    conditions = {c["type"]: c["status"] for c in toxic.status["conditions"]}
    assert conditions == {
        "SpecValid": "True", "TargetFound": "True", "TargetClaimed": "True", "Progressing": "False", "Healthy": "True",
        "Paused": "False", "Completed": "True",
    }  # fmt: skip


@pytest.mark.parametrize("worker", ["toxic", "encode"])
async def test_a_restart_at_any_moment_changes_nothing(worker: str, kmock: Any) -> None:
    """The operator is another process every second look (two looks make a window), and at every change of phase."""
    async with world(kmock, worker, "hint") as it:
        it.put("rollouts", rollout(worker, analysis={"minimumSamples": 10, "interval": "1s"}))
        phases: list[str] = []
        while phases[-1:] not in (["Completed"], ["Retaining"]) and len(phases) < 150:
            await it.step(is_restarted=len(phases) % 2 == 0 or phases[-1:] != phases[-2:-1])
            phases.append(it.status["phase"])
    assert phases[-1] in ("Completed", "Retaining")
    assert "RollingBack" not in phases
    # One candidate and one of each Job, however often they were asked for.
    made = [path.rpartition("/")[2].partition("?")[0] for method, path in it.requests if method == "POST"]
    assert made.count("deployments") == 1
    assert made.count("jobs") == len(it.objects("jobs"))


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({"failing": 0.2}, "error rate"),
        ({"latency": 0.5}, "p95 latency"),
        ({"toxic": 0.5}, "share of toxic"),
    ],
)
async def test_a_bad_candidate_goes_back(toxic: World, trouble: dict[str, float], reason: str) -> None:
    for name, value in trouble.items():
        setattr(toxic.candidate, name, value)
    await toxic.until_phase("Aborted")
    assert toxic.status["reason"] == "AnalysisFailed"
    assert reason in toxic.status["message"]
    assert toxic.routing["mode"] == "off"
    assert toxic.get("configmaps", "shop-toxic-model-rollout") is None  # the stable worker was never touched
    assert toxic.get("deployments", "shop-toxic").raw["spec"]["template"]["metadata"]["annotations"] == {}
    assert ("Warning", "RollingBack") in toxic.events()


@pytest.mark.parametrize("trouble", ["no metrics", "no messages", "stable without metrics"])
async def test_no_data_is_never_success(toxic: World, trouble: str) -> None:
    await toxic.until_phase("Canary")
    if trouble == "no metrics":
        toxic.candidate.answers_metrics = False
    elif trouble == "no messages":
        toxic.candidate.rate = 0
    await toxic.until(lambda: toxic.status.get("checkedAt") is not None)
    toxic.stable.answers_metrics = trouble != "stable without metrics"
    # Until the way back; a stable pod that is silent can't confirm that it routes no more, so that waits for it.
    await toxic.until(lambda: toxic.status["phase"] in ("Draining", "RollingBack", "Aborted"))
    assert toxic.status["reason"] == "Inconclusive"
    toxic.stable.answers_metrics = True
    await toxic.until_phase("Aborted")


async def test_a_candidate_that_never_starts_runs_into_the_deadline(toxic: World) -> None:
    toxic.candidate.becomes_ready = False
    await toxic.until_phase("Aborted", seconds=30)
    assert toxic.status["reason"] == "ProgressDeadlineExceeded"


async def test_the_way_back_is_quick(toxic: World) -> None:
    await toxic.until_phase("Canary")
    await toxic.until(lambda: toxic.routing["mode"] == "share")
    rollout_id = toxic.status["rolloutId"]
    toxic.change("rollouts", "toxic", {"metadata": {"annotations": {"feedmill.dev/abort": rollout_id}}})
    await toxic.step()
    assert toxic.routing["mode"] == "off"  # with the very look that sees it
    await toxic.until_phase("Aborted", steps=6)


async def test_replicas_follow_the_stable_workers_scale_and_the_share(toxic: World) -> None:
    await toxic.until(lambda: toxic.routing.get("share") == 50)
    assert toxic.get("deployments", "shop-toxic-candidate").raw["spec"]["replicas"] == 1
    toxic.change("deployments", "shop-toxic", {"spec": {"replicas": 7}})  # KEDA
    await toxic.step(seconds=1)
    assert toxic.get("deployments", "shop-toxic-candidate").raw["spec"]["replicas"] == 4
    assert toxic.get("deployments", "shop-toxic").raw["spec"]["replicas"] == 7


async def test_nothing_is_patched_when_nothing_changes(toxic: World) -> None:
    await toxic.until_phase("Completed")
    await toxic.step()
    before = toxic.writes()
    for _ in range(5):
        await toxic.step(seconds=60)
    assert toxic.writes() == before


async def test_a_long_canary_writes_no_more_than_its_checks(toxic: World) -> None:
    await toxic.until(lambda: toxic.status.get("checkedAt") is not None)
    before = toxic.writes()
    for _ in range(12):
        await toxic.step(seconds=5)
    assert toxic.writes() - before <= 2  # a check every 30 s


async def test_a_spec_that_cannot_be_followed_says_why(toxic: World) -> None:
    toxic.change("rollouts", "toxic", {"spec": {"strategy": {"canary": [{"share": 120}]}}})
    await toxic.step()
    condition = next(c for c in toxic.status["conditions"] if c["type"] == "SpecValid")
    assert condition["status"] == "False"
    assert "spec.strategy.canary[0].share" in condition["message"]


async def test_a_missing_target_is_waited_for(toxic: World) -> None:
    toxic.remove("deployments", "shop-toxic")
    await toxic.step()
    assert toxic.status["phase"] == "Pending"
    assert "shop-toxic is not there" in toxic.status["message"]
    toxic.put("deployments", deployment("toxic", port=toxic.port))
    await toxic.until_phase("Completed")


async def test_a_target_deleted_in_the_middle_ends_the_rollout(toxic: World) -> None:
    await toxic.until_phase("Canary")
    toxic.remove("deployments", "shop-toxic")
    await toxic.until_phase("Aborted", seconds=60)
    assert toxic.get("deployments", "shop-toxic-candidate") is None


async def test_a_conflict_is_read_again_and_does_nothing_before(toxic: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await toxic.until_phase("Starting")
    real = Cluster.patch

    async def refused(self: Cluster, resource: Any, name: str, body: Any, subresource: str = "") -> None:
        if subresource == "status":  # somebody is always quicker
            raise ApiError(409, "PATCH", "the object has been modified")
        await real(self, resource, name, body, subresource)

    monkeypatch.setattr(Cluster, "patch", refused)
    before = toxic.writes()
    assert await toxic.step() == CONFLICT_SECONDS
    assert toxic.writes() == before
    monkeypatch.undo()
    await toxic.until_phase("Canary")


async def test_a_migration(encode: World) -> None:
    await encode.until_phase("Backfilling")
    candidate = encode.get("deployments", "shop-encode-candidate").raw
    assert environment(candidate["spec"]["template"]["spec"]["containers"][0])["FEEDMILL_ROLE"] == "shadow"
    assert encode.routing["mode"] == "mirror"
    await encode.until_phase("Retaining")
    commands = {
        name.split("-")[3]: job.raw["spec"]["template"]["spec"]["containers"][0]["command"][2:]
        for name, job in encode.objects("jobs").items()
    }
    assert commands["backfill"] == ["feedmill_encode", "backfill", "--json", "--rate", "50"]
    assert commands["verify"] == ["feedmill_hint.verify", "--space", "new-space"]
    assert commands["activate"] == ["feedmill_encode", "spaces", "activate", "new-space"]
    verify = next(job.raw for name, job in encode.objects("jobs").items() if "-verify-" in name)
    assert verify["spec"]["template"]["spec"]["containers"][0]["image"] == "feedmill-hint:1"
    assert encode.status["spaces"] == {
        "new": "new-space", "old": "old-space", "coverage": 1.0, "recall": 0.99, "overlap": 0.41,
    }  # fmt: skip
    await encode.until_phase("Completed", seconds=60)
    assert any("-drop-" in name for name in encode.objects("jobs"))


async def test_a_migration_turns_back_after_the_switch(encode: World) -> None:
    await encode.until_phase("Promoting")
    rollout_id = encode.status["rolloutId"]
    encode.change("rollouts", "encode", {"metadata": {"annotations": {"feedmill.dev/abort": rollout_id}}})
    await encode.until_phase("Aborted")
    kinds = [name.split("-")[3] for name in encode.objects("jobs")]
    assert kinds == ["backfill", "verify", "activate", "reactivate", "drain", "restore"]
    assert encode.get("configmaps", "shop-encode-model-rollout").raw["data"] == {}  # the chart's own again


async def test_a_job_that_fails_for_good_goes_back(encode: World) -> None:
    encode.jobs_fail.add("backfill")
    await encode.until_phase("Aborted")
    assert encode.status["reason"] == "JobFailed"


async def test_jobs_carry_references_to_secrets_and_never_their_content(encode: World) -> None:
    await encode.until_phase("Retaining")
    for job in encode.objects("jobs").values():
        container = job.raw["spec"]["template"]["spec"]["containers"][0]
        assert "livenessProbe" not in container
        assert any("secretKeyRef" in (entry.get("valueFrom") or {}) for entry in container["env"])
    assert not any("/secrets" in path for _, path in encode.requests)
    assert all(f"/namespaces/{NAMESPACE}/" in path for _, path in encode.requests)
