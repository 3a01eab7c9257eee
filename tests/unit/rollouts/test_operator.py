"""The operator itself, as kopf runs it, against an emulated API: it starts, works, is deleted from, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
import yaml  # type: ignore[import-untyped]
from kopf import OperatorRegistry

from feedmill_rollouts import kindness
from feedmill_rollouts.cluster import Cluster
from feedmill_rollouts.metrics import application
from feedmill_rollouts.operator import FINALIZER, Rollouts
from support.kube import NAMESPACE, Emulator, World, eventually, rollout, world

SPEED = 200.0

pytestmark = pytest.mark.kmock(cls=Emulator)


@pytest.fixture
async def it(kmock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with world(kmock, "toxic") as found:
        config = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": found.server}}],
            "users": [{"name": "test", "user": {"token": "none"}}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield found


@asynccontextmanager
async def operator(it: World) -> AsyncIterator[Rollouts]:
    """The operator and the cluster's controllers, side by side, both quicker than in life."""
    rollouts = Rollouts(NAMESPACE, SPEED)
    registry = OperatorRegistry()
    rollouts.register(registry)
    stop, ready = asyncio.Event(), asyncio.Event()

    async def controllers() -> None:
        while True:
            it.control()
            it.kmock._requests.clear()
            await asyncio.sleep(0.05)

    running = asyncio.create_task(
        kopf.operator(registry=registry, namespaces=[NAMESPACE], stop_flag=stop, ready_flag=ready)
    )
    working = asyncio.create_task(controllers())
    try:
        async with asyncio.timeout(30):
            await ready.wait()
        yield rollouts
    finally:
        stop.set()
        working.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(running, working, return_exceptions=True)


def put(it: World, **spec: Any) -> None:
    it.put("rollouts", rollout("toxic", **spec))


async def test_it_takes_a_rollout_up_keeps_a_finalizer_and_lets_go_when_it_is_deleted(it: World) -> None:
    put(it)
    async with operator(it):
        await eventually(lambda: it.status.get("phase") == "Canary" and it.routing["mode"] == "share")
        assert it.get("rollouts", "toxic").raw["metadata"]["finalizers"] == [FINALIZER]
        async with aiohttp.ClientSession() as http:
            address = f"{it.server}/apis/feedmill.dev/v1alpha1/namespaces/{NAMESPACE}/modelrollouts/toxic"
            assert (await http.delete(address)).status == 200
        await eventually(lambda: it.get("rollouts", "toxic") is None)
    assert it.routing["mode"] == "off"
    assert it.get("deployments", "shop-toxic-candidate") is None
    (drain,) = (job.raw for name, job in it.objects("jobs").items() if name.endswith("-last"))
    assert drain["spec"]["template"]["spec"]["containers"][0]["command"][-2:] == ["--linger", "180"]
    assert "ownerReferences" not in drain["metadata"]  # it outlives the rollout


async def test_a_rollout_whose_target_is_gone_can_be_deleted(it: World) -> None:
    put(it)
    async with operator(it):
        await eventually(lambda: it.status.get("phase") == "Canary")
        it.remove("deployments", "shop-toxic")
        async with aiohttp.ClientSession() as http:
            await http.delete(f"{it.server}/apis/feedmill.dev/v1alpha1/namespaces/{NAMESPACE}/modelrollouts/toxic")
        await eventually(lambda: it.get("rollouts", "toxic") is None)
    assert it.commands("drain")  # made from the candidate
    assert it.get("deployments", "shop-toxic-candidate") is None


async def test_an_operator_that_ends_and_another_that_starts_go_on(it: World) -> None:
    put(it)
    async with operator(it):
        await eventually(lambda: it.status.get("phase") == "Canary")
    first = it.status["rolloutId"]
    async with operator(it):
        await eventually(lambda: (it.status.get("message") or "").startswith("step 1 of 2"))
        it.change("rollouts", "toxic", {"metadata": {"annotations": {"feedmill.dev/abort": first}}})
        await eventually(lambda: it.status.get("phase") == "Aborted")
    assert it.status["history"][0]["rolloutId"] == first


async def test_pods_in_work_cost_more_and_are_patched_once(it: World) -> None:
    it.control()
    async with aiohttp.ClientSession() as http, aiohttp.ClientSession() as pods:
        cluster = Cluster(http, it.server, NAMESPACE)
        assert await kindness.keep(cluster, pods) == 2
        assert await kindness.keep(cluster, pods) == 0
        it.stable.answers_metrics = False
        assert await kindness.keep(cluster, pods) == 0
    cost = it.get("pods", "shop-toxic-0").raw["metadata"]["annotations"][kindness.DELETION_COST]
    assert cost == str(kindness.cost(5)) == "3"


async def test_probes() -> None:
    is_ready = False
    runner = aiohttp.web.AppRunner(application(lambda: is_ready, asyncio.get_running_loop().time))
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/readyz")).status == 503
            is_ready = True
            assert (await http.get("/readyz")).status == 200
            assert (await http.get("/livez")).status == 200
            assert "feedmill_rollouts_looks_total" in await (await http.get("/metrics")).text()
    finally:
        await runner.cleanup()
