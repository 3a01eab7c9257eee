"""A small cluster: kmock's emulated API, controllers that do what a cluster's would, and pods that answer /metrics."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import jsonpatch  # type: ignore[import-untyped]
import kmock as kmock_module
from aiohttp import web

from feedmill_rollouts.cluster import Cluster
from feedmill_rollouts.looking import Window
from feedmill_rollouts.reconcile import Reconciler

NAMESPACE = "shop"
LABELS = {"app.kubernetes.io/name": "feedmill", "app.kubernetes.io/instance": "shop"}
RESOURCES = {
    "deployments": "apps/v1/deployments",
    "jobs": "batch/v1/jobs",
    "pods": "v1/pods",
    "configmaps": "v1/configmaps",
    "events": "v1/events",
    "rollouts": "feedmill.dev/v1alpha1/modelrollouts",
}


def deployment(worker: str, replicas: int = 2, port: int = 8080) -> dict[str, Any]:
    labels = {**LABELS, "app.kubernetes.io/component": worker}
    container = {
        "name": "worker",
        "image": f"feedmill-{worker}:1",
        "command": ["python3", "-m", f"feedmill_{worker}"],
        "ports": [{"name": "http", "containerPort": port}],
        "env": [
            {"name": "MONGO_URI", "valueFrom": {"secretKeyRef": {"name": "feedmill-database", "key": "MONGO_URI"}}}
        ],
        "envFrom": [{"configMapRef": {"name": f"shop-{worker}-model"}}],
        "livenessProbe": {"httpGet": {"path": "/livez", "port": "http"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"shop-{worker}", "namespace": NAMESPACE, "labels": labels, "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {}},
                "spec": {"containers": [container]},
            },
        },
    }


def rollout(worker: str, **spec: Any) -> dict[str, Any]:
    strategy: dict[str, Any] = (
        {"canary": [{"share": 5, "hold": "2m"}, {"share": 50, "hold": "1m"}]}
        if worker == "toxic"
        else {"migrate": {"keepOld": "10m"}}
    )
    return {
        "apiVersion": "feedmill.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": worker, "namespace": NAMESPACE, "uid": f"uid-{worker}", "generation": 1},
        "spec": {
            "worker": worker,
            "targetRef": {"name": f"shop-{worker}"},
            "model": {"uri": "pkg://new_model"},
            "strategy": strategy,
            "analysis": {"minimumSamples": 10, "interval": "30s"},
            **spec,
        },
    }


@dataclass
class Behaviour:
    """What a Deployment's pods say of themselves: how many messages go through in a minute, and how they end."""

    rate: float = 600.0
    failing: float = 0.0
    latency: float = 0.02
    toxic: float = 0.1
    answers_metrics: bool = True
    becomes_ready: bool = True


@dataclass
class World:
    """The cluster. :meth:`step` is one look of the operator, after the cluster has done what was asked of it."""

    kmock: Any
    server: str
    port: int
    stable: Behaviour = field(default_factory=Behaviour)
    candidate: Behaviour = field(default_factory=Behaviour)
    answers: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "backfill": {"space": "new-space"},
            "verify": {"coverage": 1.0, "recall": 0.99, "overlap": 0.41, "active": "old-space"},
            "drain": {"returned": 3, "dropped": 0},
        }
    )
    jobs_fail: set[str] = field(default_factory=set)
    jobs_hang: set[str] = field(default_factory=set)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    windows: dict[str, Window] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Methods and paths, of all looks so far."""

    def objects(self, kind: str) -> dict[str, Any]:
        found = {}
        for (resource, _, name), thing in self.kmock.objects.items():
            if str(resource.plural) == RESOURCES[kind].rpartition("/")[2] and not thing.deleted:
                found[str(name)] = thing
        return found

    def get(self, kind: str, name: str) -> Any:
        return self.objects(kind).get(name)

    def put(self, kind: str, body: dict[str, Any]) -> None:
        self.kmock.objects[RESOURCES[kind], NAMESPACE, body["metadata"]["name"]] = copy.deepcopy(body)

    def remove(self, kind: str, name: str) -> None:
        self.kmock.objects[RESOURCES[kind], NAMESPACE, name].delete()

    def change(self, kind: str, name: str, patch: dict[str, Any]) -> None:
        self.kmock.objects[RESOURCES[kind], NAMESPACE, name].patch(patch)

    @property
    def status(self) -> dict[str, Any]:
        (found,) = self.objects("rollouts").values()
        status: dict[str, Any] = found.raw.get("status") or {}
        return status

    @property
    def routing(self) -> dict[str, Any]:
        found = next((c for name, c in self.objects("configmaps").items() if name.endswith("-routing")), None)
        routing: dict[str, Any] = json.loads(found.raw["data"]["routing.json"]) if found else {"mode": "off"}
        return routing

    def events(self) -> list[tuple[str, str]]:
        return [(e.raw["type"], e.raw["reason"]) for e in self.objects("events").values()]

    # ---- the controllers

    def control(self) -> None:
        """Deployments get their pods, Jobs get done, what is owned by nothing goes."""
        for name, one in self.objects("deployments").items():
            self._control_deployment(name, one.raw)
        for name, pod in self.objects("pods").items():
            owner = pod.raw["metadata"]["labels"].get("owner")
            if owner and owner not in self.objects("deployments"):
                self.remove("pods", name)
        for name, job in self.objects("jobs").items():
            self._control_job(name, job.raw)

    def _behaviour(self, name: str) -> Behaviour:
        return self.candidate if name.endswith("-candidate") else self.stable

    def _control_deployment(self, name: str, raw: dict[str, Any]) -> None:
        wanted = int(raw["spec"].get("replicas", 1))
        is_ready = self._behaviour(name).becomes_ready
        status = {
            "observedGeneration": raw["metadata"].get("generation", 0),
            "replicas": wanted,
            "updatedReplicas": wanted,
            "availableReplicas": wanted if is_ready else 0,
        }
        if raw.get("status") != status:
            self.change("deployments", name, {"status": status})
        for number in range(wanted):
            if f"{name}-{number}" not in self.objects("pods"):
                template = copy.deepcopy(raw["spec"]["template"])
                labels = {**template["metadata"]["labels"], "owner": name}
                template["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": self.port}]
                pod = {
                    "metadata": {
                        "name": f"{name}-{number}",
                        "namespace": NAMESPACE,
                        "labels": labels,
                        "annotations": {},
                    },
                    "spec": template["spec"],
                    "status": {"phase": "Running", "podIP": f"127.0.0.{2 if name.endswith('-candidate') else 1}"},
                }
                self.put("pods", pod)
        for number in range(wanted, 20):
            if f"{name}-{number}" in self.objects("pods"):
                self.remove("pods", f"{name}-{number}")

    def _control_job(self, name: str, raw: dict[str, Any]) -> None:
        if raw.get("status"):
            return
        kind = next((kind for kind in ("reactivate", *KINDS) if f"-{kind}-" in name), "")
        if kind in self.jobs_hang:
            return
        if kind in self.jobs_fail:
            self.change("jobs", name, {"status": {"conditions": [{"type": "Failed", "status": "True"}]}})
            return
        self.change("jobs", name, {"status": {"succeeded": 1}})
        message = json.dumps(self.answers.get(kind, {"done": True}))
        terminated = {"state": {"terminated": {"exitCode": 0, "message": message}}}
        self.put("pods", {
            "metadata": {"name": f"{name}-pod", "namespace": NAMESPACE, "labels": {"job-name": name}},
            "spec": raw["spec"]["template"]["spec"],
            "status": {"phase": "Succeeded", "containerStatuses": [terminated]},
        })  # fmt: skip

    def metrics(self, is_candidate: bool) -> str:
        """Counters that have run since long ago at the behaviour's rate, as of the world's own time."""
        it = self.candidate if is_candidate else self.stable
        count = it.rate * (self.now - datetime(2025, 12, 31, tzinfo=UTC)).total_seconds() / 60
        failed, answered = count * it.failing, count * (1 - it.failing)
        lines = [
            "process_start_time_seconds 1700000000",
            f'feedmill_messages_settled_total{{worker="toxic",outcome="answered"}} {answered}',
            f'feedmill_messages_settled_total{{worker="toxic",outcome="given_back"}} {failed}',
            f'feedmill_verdicts_total{{worker="toxic",verdict="toxic"}} {answered * it.toxic}',
            f'feedmill_verdicts_total{{worker="toxic",verdict="clean"}} {answered * (1 - it.toxic)}',
            f'feedmill_routing_generation{{worker="toxic"}} {self.routing.get("generation", 0)}',
            'feedmill_messages_in_flight{worker="toxic"} 5',
        ]
        lines += [
            f'feedmill_handle_seconds_bucket{{worker="toxic",le="{bound}"}} {count if bound >= it.latency else 0}'
            for bound in (0.01, 0.05, 0.25, 1.0)
        ]
        lines.append(f'feedmill_handle_seconds_bucket{{worker="toxic",le="+Inf"}} {count}')
        return "\n".join(lines) + "\n"

    # ---- the operator

    async def step(self, seconds: float = 10, name: str = "", is_restarted: bool = False) -> float | None:
        """Time passes, the cluster works, the operator looks once."""
        self.now += timedelta(seconds=seconds)
        self.control()
        if is_restarted:
            self.windows.clear()
        async with aiohttp.ClientSession() as http, aiohttp.ClientSession() as pods:
            reconciler = Reconciler(Cluster(http, self.server, NAMESPACE), pods, self.windows)
            try:
                return await reconciler.tick(name or next(iter(self.objects("rollouts"))), self.now)
            finally:
                # kmock asks its filters about every request so far, at each request: the log is kept here instead.
                self.requests += [(r.method.value.upper(), str(r.url)) for r in self.kmock._requests]
                self.kmock._requests.clear()

    async def delete(self, name: str, seconds: float = 5) -> None:
        """The ModelRollout is deleted, as kopf's handler does it: again and again until it may go."""
        self.change("rollouts", name, {
            "metadata": {"deletionTimestamp": self.now.isoformat(), "finalizers": ["feedmill.dev/rollouts"]}
        })  # fmt: skip
        pause: float | None = 0.0
        while pause is not None:
            self.now += timedelta(seconds=seconds)
            self.control()
            async with aiohttp.ClientSession() as http, aiohttp.ClientSession() as pods:
                reconciler = Reconciler(Cluster(http, self.server, NAMESPACE), pods, self.windows)
                pause = await reconciler.forget(name, self.now)
        self.control()
        self.remove("rollouts", name)

    def commands(self, kind: str) -> list[list[str]]:
        """What the Jobs of a kind run, without python3 -m."""
        jobs = [job.raw for name, job in self.objects("jobs").items() if f"-{kind}-" in name]
        return [job["spec"]["template"]["spec"]["containers"][0]["command"][2:] for job in jobs]

    def annotate(self, name: str, verb: str) -> None:
        rollout_id = self.get("rollouts", name).raw["status"]["rolloutId"]
        self.change("rollouts", name, {"metadata": {"annotations": {f"feedmill.dev/{verb}": rollout_id}}})

    def writes(self) -> int:
        return sum(method != "GET" for method, _ in self.requests)

    async def until(self, condition: Callable[[], bool], steps: int = 200, **how: Any) -> None:
        for _ in range(steps):
            await self.step(**how)
            if condition():
                return
        raise AssertionError(f"{self.status.get('phase')}: {self.status.get('message')}\n{json.dumps(self.status)}")

    async def until_phase(self, *phases: str, **how: Any) -> None:
        await self.until(lambda: self.status.get("phase") in phases, **how)


KINDS = ("backfill", "verify", "activate", "restore", "drain", "drop")


class Emulator(kmock_module.KubernetesEmulator):
    """kmock's, which merges patches only, with JSON patches as well: kopf's way to its finalizer."""

    async def _handle(self, request: Any) -> Any:
        if isinstance(request.data, list) and request.name is not None:
            thing = self.objects[request.resource, request.namespace, request.name]
            before = copy.deepcopy(thing.raw)
            # The emulated objects have no versions that could be tested.
            after = jsonpatch.apply_patch(before, [change for change in request.data if change["op"] != "test"])
            gone = dict.fromkeys(before["metadata"].keys() - after["metadata"].keys())
            changed = {**after, "metadata": {**gone, **after["metadata"]}}
            object.__setattr__(request, "data", changed)
        return await super()._handle(request)


@asynccontextmanager
async def world(kmock: kmock_module.KubernetesEmulator, *workers: str) -> AsyncIterator[World]:
    """A namespace with these workers installed, and their pods' metrics behind one port, told apart by address."""
    held: list[World] = []

    async def metrics(request: web.Request) -> web.Response:
        it = held[0]
        is_candidate = (request.transport.get_extra_info("sockname") if request.transport else ("",))[0] == "127.0.0.2"
        if not (it.candidate if is_candidate else it.stable).answers_metrics:
            return web.Response(status=503)
        return web.Response(text=it.metrics(is_candidate))

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "0.0.0.0", 0)  # noqa: S104 (two addresses of this machine)
    await site.start()
    port = runner.addresses[0][1]
    for path in RESOURCES.values():
        kmock.resources[path] = {
            "kind": path.rpartition("/")[2], "namespaced": True, "verbs": ["get", "list", "watch", "patch"],
        }  # fmt: skip
    for path in ("v1/namespaces", "apiextensions.k8s.io/v1/customresourcedefinitions"):
        kmock.resources[path] = {
            "kind": path.rpartition("/")[2],
            "namespaced": False,
            "verbs": ["get", "list", "watch"],
        }
    it = World(kmock, str(kmock.url).rstrip("/"), port)
    held.append(it)
    for worker in workers:
        it.put("deployments", deployment(worker, port=port))
        data = {"FEEDMILL_MODEL": "", "FEEDMILL_THRESHOLD": "0.7"}
        it.put("configmaps", {"metadata": {"name": f"shop-{worker}-model", "namespace": NAMESPACE}, "data": data})
    try:
        yield it
    finally:
        await runner.cleanup()


async def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.02)
