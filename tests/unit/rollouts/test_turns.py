"""What people and clusters do in the middle of a rollout: every turn ends with a model and space of one encoder."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from feedmill_rollouts.cluster import ApiError, Cluster, merge_patch
from feedmill_rollouts.metrics import METRICS
from support.kube import World, deployment, rollout, world

ENCODE_CONFIG = "shop-encode-model-rollout"


def condition(it: World, name: str, kind: str) -> dict[str, Any]:
    conditions = it.get("rollouts", name).raw["status"]["conditions"]
    found: dict[str, Any] = next(entry for entry in conditions if entry["type"] == kind)
    return found


def test_a_merge_patch_says_what_is_gone_and_replaces_lists() -> None:
    before = {"a": {"x": "1", "y": "2"}, "list": [1, 2], "same": {"z": "3"}}
    assert merge_patch(before, {"a": {"y": "2", "n": "4"}, "list": [2], "same": {"z": "3"}}) == {
        "a": {"x": None, "n": "4"}, "list": [2],
    }  # fmt: skip
    assert merge_patch(before, before) == {}


async def test_a_shadow_becomes_a_canary_in_one_patch(kmock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server refuses a Deployment without a template, be it for a moment."""
    bodies: list[dict[str, Any]] = []
    real = Cluster.patch

    async def noted(self: Cluster, resource: Any, name: str, body: Any, subresource: str = "") -> None:
        if name == "shop-toxic-candidate":
            bodies.append(body)
        await real(self, resource, name, body, subresource)

    monkeypatch.setattr(Cluster, "patch", noted)
    async with world(kmock, "toxic") as it:
        strategy = {"shadow": {"hold": "1m"}, "canary": [{"share": 5, "hold": "2m"}]}
        it.put("rollouts", rollout("toxic", strategy=strategy))
        await it.until_phase("Shadow")
        it.change(
            "deployments", "shop-toxic-candidate", {"spec": {"template": {"metadata": {"labels": {"gone": "x"}}}}}
        )
        await it.until(lambda: it.routing["mode"] == "share")
        (body,) = bodies
        assert body["spec"]["template"]["metadata"]["labels"] == {"gone": None}
        (container,) = body["spec"]["template"]["spec"]["containers"]
        template = it.get("deployments", "shop-toxic-candidate").raw["spec"]["template"]
        assert template["spec"]["containers"] == [container]
        assert "gone" not in template["metadata"]["labels"]


async def test_an_abort_while_the_old_space_is_kept_really_goes_back(encode: World) -> None:
    await encode.until_phase("Retaining")
    assert encode.status["stableModel"]["uri"] == "pkg://new_model"
    encode.annotate("encode", "abort")
    await encode.until_phase("Aborted")
    assert encode.commands("reactivate") == [["feedmill_encode", "spaces", "activate", "old-space"]]
    assert encode.get("configmaps", ENCODE_CONFIG).raw["data"] == {}  # the chart's model, as before
    assert encode.status["stableModel"]["uri"] == ""


@pytest.mark.parametrize("turn", ["abort", "another model"])
async def test_a_space_that_is_being_dropped_is_no_way_back(encode: World, turn: str) -> None:
    encode.jobs_hang.add("drop")
    await encode.until_phase("Dropping", seconds=60)
    if turn == "abort":
        encode.annotate("encode", "abort")
    else:
        encode.change("rollouts", "encode", {"spec": {"model": {"uri": "pkg://third"}}})
    for _ in range(3):
        await encode.step()
    assert encode.status["phase"] == "Dropping"
    encode.jobs_hang.clear()
    await encode.until_phase("Completed")
    assert encode.commands("reactivate") == []
    await encode.step()
    assert encode.status["phase"] == ("Completed" if turn == "abort" else "Starting")


async def test_a_spec_that_becomes_invalid_takes_the_rollout_back(toxic: World) -> None:
    await toxic.until(lambda: toxic.routing["mode"] == "share")
    good = toxic.get("rollouts", "toxic").raw["spec"]["strategy"]
    toxic.change("rollouts", "toxic", {"spec": {"strategy": {"canary": [{"share": 50}, {"share": 5}]}}})
    await toxic.step()
    assert toxic.routing["mode"] == "off"
    assert ("Warning", "InvalidSpec") in toxic.events()
    await toxic.until_phase("Aborted")
    assert toxic.status["reason"] == "InvalidSpec"
    assert "expected shares that rise" in condition(toxic, "toxic", "SpecValid")["message"]
    assert toxic.commands("drain")
    await toxic.step()
    assert toxic.status["phase"] == "Aborted"
    toxic.change("rollouts", "toxic", {"spec": {"strategy": good}})
    await toxic.until_phase("Completed")  # nothing but the spec was in the way
    assert ("Normal", "ValidSpec") in toxic.events()


async def test_a_rollout_with_an_invalid_spec_can_be_deleted(toxic: World) -> None:
    await toxic.until(lambda: toxic.routing["mode"] == "share")
    toxic.change("rollouts", "toxic", {"spec": {"strategy": {"canary": []}, "worker": "hint"}})
    await toxic.delete("toxic")
    assert toxic.routing["mode"] == "off"
    assert toxic.get("deployments", "shop-toxic-candidate") is None
    assert toxic.commands("drain") == [["feedmill.drain", "--worker", "toxic", "--linger", "180"]]


@pytest.mark.parametrize(
    ("phase", "model", "last_switch", "left"),
    [
        ("Switching", None, "reactivate", {"drain", "restore"}),
        ("Promoting", {}, "reactivate", {"drain", "restore"}),
        ("RollingBack", {}, "reactivate", {"drain", "restore"}),
        ("Restoring", {}, "reactivate", {"restore"}),
        ("Retaining", {"FEEDMILL_MODEL": "pkg://new_model", "FEEDMILL_THRESHOLD": ""}, "activate", set()),
    ],
)
async def test_a_deletion_leaves_model_and_space_together(
    encode: World, phase: str, model: dict[str, str] | None, last_switch: str, left: set[str]
) -> None:
    if phase in ("RollingBack", "Restoring"):
        await encode.until_phase("Promoting")
        encode.annotate("encode", "abort")
    await encode.until_phase(phase)
    await encode.delete("encode")
    config = encode.get("configmaps", ENCODE_CONFIG)
    assert (config.raw["data"] if config else None) == model
    switches = [name.split("-")[3] for name in encode.objects("jobs") if "activate" in name]
    assert switches[-1] == last_switch
    orphans = {name.split("-")[3] for name in encode.objects("jobs") if name.endswith("-last")}
    assert orphans == left
    assert encode.routing["mode"] == "off"


async def test_a_deletion_that_cannot_go_back_in_time_is_not_held_up(encode: World) -> None:
    encode.jobs_hang.add("reactivate")
    await encode.until_phase("Promoting")
    await encode.delete("encode", seconds=60)
    assert {"reactivate", "restore", "drain"} == {
        name.split("-")[3] for name in encode.objects("jobs") if name.endswith("-last")
    }
    assert encode.get("configmaps", ENCODE_CONFIG).raw["data"] == {}


async def test_of_two_rollouts_of_one_target_the_older_has_it(kmock: Any) -> None:
    async with world(kmock, "toxic") as it:
        first, second = rollout("toxic"), rollout("toxic", model={"uri": "pkg://other"})
        first["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z"}
        second["metadata"] |= {"name": "another", "uid": "uid-2", "creationTimestamp": "2026-01-02T00:00:00Z"}
        it.put("rollouts", second)
        it.put("rollouts", first)
        for _ in range(4):
            await it.step(name="another")
            await it.step(name="toxic")
        waiting = it.get("rollouts", "another").raw["status"]
        assert (waiting["phase"], waiting["message"]) == (
            "Pending",
            "waits: ModelRollout toxic has Deployment shop-toxic",
        )
        assert condition(it, "another", "TargetClaimed")["reason"] == "ClaimedByAnother"
        assert it.events().count(("Warning", "ClaimedByAnother")) == 1
        container = it.get("deployments", "shop-toxic-candidate").raw["spec"]["template"]["spec"]["containers"][0]
        assert {"name": "FEEDMILL_MODEL", "value": "pkg://new_model"} in container["env"]
        await it.delete("toxic")
        await it.until_phase("Completed")
        assert it.status["stableModel"]["uri"] == "pkg://other"
        (owner,) = it.get("configmaps", "shop-toxic-routing").raw["metadata"]["ownerReferences"]
        assert owner["uid"] == "uid-2"


async def test_deleting_the_one_that_waits_touches_nothing(kmock: Any) -> None:
    async with world(kmock, "toxic") as it:
        waiting = rollout("toxic")
        waiting["metadata"] |= {"name": "waiting", "uid": "uid-2", "creationTimestamp": "2026-01-02T00:00:00Z"}
        it.put("rollouts", rollout("toxic"))
        it.put("rollouts", waiting)
        await it.step(name="waiting")
        for _ in range(5):
            await it.step(name="toxic")
        await it.delete("waiting")
        assert it.get("deployments", "shop-toxic-candidate") is not None
        await it.until_phase("Completed")


@pytest.mark.parametrize("phase", ["Starting", "Shadow", "Canary", "Promoting", "RollingBack", "Draining"])
async def test_a_target_that_is_removed_ends_it_and_its_queue_is_drained(kmock: Any, phase: str) -> None:
    async with world(kmock, "toxic") as it:
        strategy = {"shadow": {"hold": "1m"}, "canary": [{"share": 5, "hold": "2m"}]}
        it.put("rollouts", rollout("toxic", strategy=strategy))
        if phase == "RollingBack":
            await it.until_phase("Canary")
            it.annotate("toxic", "abort")
        await it.until_phase(phase)
        it.remove("deployments", "shop-toxic")
        await it.until_phase("Aborted", "Completed", steps=8)
        assert it.commands("drain") == [["feedmill.drain", "--worker", "toxic"]]
        assert it.get("deployments", "shop-toxic-candidate") is None


async def test_where_nothing_can_be_drained_the_end_says_how(toxic: World) -> None:
    await toxic.until_phase("Canary")
    toxic.remove("deployments", "shop-toxic")
    toxic.remove("deployments", "shop-toxic-candidate")
    await toxic.until_phase("Aborted", steps=8)
    assert "python -m feedmill.drain --worker toxic" in toxic.status["message"]


@pytest.mark.parametrize("phase", ["Switching", "Promoting", "RollingBack", "Restoring", "Retaining", "Dropping"])
@pytest.mark.parametrize("candidate", ["there", "gone"])
async def test_a_removed_target_ends_every_phase_of_a_migration(encode: World, phase: str, candidate: str) -> None:
    if phase in ("RollingBack", "Restoring"):
        await encode.until_phase("Promoting")
        encode.annotate("encode", "abort")
    await encode.until_phase(phase, seconds=60)
    encode.remove("deployments", "shop-encode")
    if candidate == "gone" and encode.get("deployments", "shop-encode-candidate"):
        encode.remove("deployments", "shop-encode-candidate")
    await encode.until_phase("Aborted", "Completed", steps=30, seconds=60)
    is_new = encode.status["stableModel"]["uri"] == "pkg://new_model"
    switches = [name.split("-")[3] for name in encode.objects("jobs") if "activate" in name]
    assert (switches[-1] == "activate") == is_new
    config = encode.get("configmaps", ENCODE_CONFIG)
    assert bool(config and config.raw["data"].get("FEEDMILL_MODEL")) == is_new


async def test_what_helm_changes_between_two_rollouts_is_what_the_next_goes_back_to(toxic: World) -> None:
    await toxic.until_phase("Promoting")
    toxic.annotate("toxic", "abort")
    await toxic.until_phase("Aborted")
    toxic.change("configmaps", "shop-toxic-model", {"data": {"FEEDMILL_MODEL": "pkg://helms"}})
    for _ in range(3):
        await toxic.step(seconds=60)
    assert toxic.get("configmaps", "shop-toxic-model-rollout").raw["data"] == {}  # the chart's again: Helm's to change
    toxic.change("rollouts", "toxic", {"spec": {"model": {"uri": "pkg://third"}}})
    await toxic.until_phase("Promoting")
    assert toxic.status["stableModel"]["uri"] == "pkg://helms"


async def test_what_an_aborted_migration_encoded_is_kept_for_a_retry_and_then_dropped(encode: World) -> None:
    await encode.until_phase("Verifying")
    encode.annotate("encode", "abort")
    await encode.until_phase("Aborted")
    assert encode.status["leftovers"][0]["space"] == "new-space"
    for _ in range(3):
        await encode.step(seconds=60)
    assert encode.commands("drop") == []
    await encode.until(lambda: encode.status["leftovers"] == [], seconds=120)
    assert encode.commands("drop") == [["feedmill_encode", "spaces", "drop", "new-space"]]
    assert (encode.status["phase"], encode.status["reason"]) == ("Aborted", "Aborted")
    assert encode.status["message"] == "aborted by hand | space new-space is dropped"
    assert ("Normal", "SpaceDropped") in encode.events()
    assert len(encode.status["history"]) == 1


async def test_a_retry_takes_the_kept_space_up_again(encode: World) -> None:
    await encode.until_phase("Verifying")
    encode.annotate("encode", "abort")
    await encode.until_phase("Aborted")
    encode.annotate("encode", "retry")
    await encode.until_phase("Retaining")
    assert encode.status["leftovers"] == []


async def test_the_old_space_of_a_superseded_migration_is_dropped_in_its_time(encode: World) -> None:
    await encode.until_phase("Retaining")
    encode.answers["backfill"] = {"space": "third-space"}
    encode.answers["verify"] |= {"active": "new-space"}
    encode.change("rollouts", "encode", {"spec": {"model": {"uri": "pkg://third"}}})
    await encode.until_phase("Starting")
    assert encode.status["leftovers"][0]["space"] == "old-space"
    await encode.until(lambda: encode.status["phase"] == "Completed" and not encode.status["leftovers"], seconds=60)
    assert sorted(command[-1] for command in encode.commands("drop")) == ["new-space", "old-space"]


async def test_jobs_that_lead_forward_are_stopped_on_the_way_back(encode: World) -> None:
    encode.jobs_hang.add("backfill")
    await encode.until_phase("Backfilling")
    await encode.step()
    assert encode.commands("backfill")
    encode.annotate("encode", "abort")
    await encode.until_phase("Aborted")
    assert encode.commands("backfill") == []


async def test_the_share_a_pause_and_the_phases_can_be_seen(toxic: World) -> None:
    before = METRICS.phases.labels("Canary")._value.get()
    await toxic.until(lambda: toxic.routing["mode"] == "share")
    assert toxic.status["share"] == toxic.routing["share"] == 5
    toxic.change("rollouts", "toxic", {"spec": {"paused": True}})
    await toxic.step()
    toxic.change("rollouts", "toxic", {"spec": {"paused": False}})
    await toxic.step()
    assert {("Normal", "Paused"), ("Normal", "Resumed")} <= set(toxic.events())
    await toxic.until_phase("Completed")
    assert toxic.status["share"] == 0
    assert METRICS.phases.labels("Canary")._value.get() == before + 1


@pytest.mark.parametrize("kind", ["deployments", "configmaps", "pods", "jobs"])
@pytest.mark.parametrize("verb", ["patch", "create"])
async def test_a_conflict_on_any_object_is_tried_again(
    toxic: World, monkeypatch: pytest.MonkeyPatch, kind: str, verb: str
) -> None:
    """Helm, KEDA or a person wrote the object, or made it, at the same moment: every other write is refused."""
    real, method_of = Cluster._ask, {"patch": "PATCH", "create": "POST"}
    asked: list[str] = []

    async def refusing(self: Cluster, method: str, url: str, *more: Any) -> Any:
        path = url.partition("?")[0]
        if method == method_of[verb] and f"/{kind}" in path:
            asked.append(path)
            if asked.count(path) % 2:
                raise ApiError(409, method, "the object has been modified")
        return await real(self, method, url, *more)

    monkeypatch.setattr(Cluster, "_ask", refusing)
    for _ in range(80):
        with suppress(ApiError):  # the daemon logs it and looks again
            await toxic.step()
        if toxic.status.get("phase") == "Completed":
            break
    assert toxic.status["phase"] == "Completed"
    assert toxic.get("configmaps", "shop-toxic-model-rollout").raw["data"]["FEEDMILL_MODEL"] == "pkg://new_model"
    assert toxic.commands("drain")


async def test_a_target_that_comes_back_can_be_tried_again(toxic: World) -> None:
    await toxic.until_phase("Canary")
    toxic.remove("deployments", "shop-toxic")
    await toxic.until_phase("Aborted")
    assert toxic.status["reason"] == "TargetGone"
    toxic.put("deployments", deployment("toxic", port=toxic.port))
    toxic.annotate("toxic", "retry")
    await toxic.until_phase("Completed")
