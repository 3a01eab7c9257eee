"""Looking: the cluster as far as a decision needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from feedmill_rollouts import objects
from feedmill_rollouts.analysis import Samples, Scrape, check
from feedmill_rollouts.claims import claimed_by
from feedmill_rollouts.cluster import CONFIG_MAPS, DEPLOYMENTS, JOBS, PODS, ROLLOUTS, Cluster
from feedmill_rollouts.decisions import ANALYSED
from feedmill_rollouts.observed import CandidateWanted, JobSeen, JobWanted, Observation
from feedmill_rollouts.scrape import is_running, scrape
from feedmill_rollouts.spec import JsonObject, Spec
from feedmill_rollouts.status import BEGINNING, FINAL, Check, Status
from feedmill_rollouts.wishes import desired

APPROVE, ABORT, RETRY = (f"{objects.GROUP}/{verb}" for verb in ("approve", "abort", "retry"))
FORWARD = frozenset({"backfill", "verify", "activate"})
"""Kinds of Jobs that lead forward: none of them may run on the way back."""


@dataclass(slots=True)
class Window:
    """The begin of the present analysis window: what the pods said then. Lost with a restart: a new window begins."""

    key: tuple[object, ...]
    stable: Scrape
    candidate: Scrape


class Looking:
    """Reads; changes nothing."""

    def __init__(self, cluster: Cluster, pods: aiohttp.ClientSession, windows: dict[str, Window]) -> None:
        self._cluster = cluster
        self._pods = pods
        self._windows = windows

    async def observe(self, rollout: JsonObject, spec: Spec, status: Status, now: datetime) -> Observation:
        """Raises ApiError."""
        annotations = rollout["metadata"].get("annotations") or {}
        stable = await self._cluster.get(DEPLOYMENTS, spec.target)
        seen = Observation(
            target_found=stable is not None,
            is_deleted=bool(rollout["metadata"].get("deletionTimestamp")),
            approved=annotations.get(APPROVE, ""),
            aborted=annotations.get(ABORT, ""),
            retried=annotations.get(RETRY, ""),
        )
        if other := claimed_by(rollout, await self._cluster.list(ROLLOUTS, {})):
            return replace(seen, claimed_by=other)
        wanted = desired(spec, status)
        candidate = None
        if status.phase not in BEGINNING | FINAL:
            candidate = await self._cluster.get(DEPLOYMENTS, objects.candidate_name(spec.target))
        seen = replace(
            seen,
            job=await self._job(rollout, status, wanted.job),
            can_make_jobs=stable is not None or candidate is not None,
            is_halted=wanted.is_halted and await self.is_halted(spec, status.rollout_id),
            candidate_gone=candidate is None,
        )
        if stable is None:
            return seen
        chart = await self.chart_model(spec.target)
        own = (await self._cluster.get(CONFIG_MAPS, objects.model_config_name(spec.target)) or {}).get("data") or {}
        template_annotations = stable["spec"]["template"]["metadata"].get("annotations") or {}
        seen = replace(
            seen,
            stable_model=objects.model_of({**chart, **own}),
            chart_key=objects.model_of(chart).key,
            stable_ready=_is_rolled_out(stable),
            promoted_key=template_annotations.get(objects.MODEL_ANNOTATION, ""),
        )
        if status.phase in BEGINNING | FINAL | {"Retaining", "Dropping"}:
            return seen
        pods_of_candidate = await self._candidate_pods(stable)
        of_stable = await scrape(self._pods, await self.running(stable), now)
        of_candidate = await scrape(self._pods, [pod for pod in pods_of_candidate if is_running(pod)], now)
        return replace(
            seen,
            routing_confirmed=_confirms(of_stable, status.routing_generation),
            candidate_ready=_is_candidate_ready(stable, candidate, wanted.candidate, rollout, chart),
            candidate_gone=candidate is None and not pods_of_candidate,
            check=self._check(rollout, spec, status, of_stable, of_candidate),
            backfill=_backfill(of_candidate),
        )

    async def running(self, deployment: JsonObject) -> list[JsonObject]:
        """A Deployment's pods that run and stay. Raises ApiError."""
        pods = await self._cluster.list(PODS, deployment["spec"]["selector"]["matchLabels"])
        return [pod for pod in pods if is_running(pod)]

    async def chart_model(self, target: str) -> dict[str, str]:
        """What the chart's ConfigMap says of the model. Raises ApiError."""
        found = await self._cluster.get(CONFIG_MAPS, f"{target}-model")
        return dict((found or {}).get("data") or {})

    async def forward_jobs(self, rollout_id: str) -> list[str]:
        """Names of the Jobs that lead forward and have not ended. Raises ApiError."""
        jobs = await self._cluster.list(JOBS, {objects.ROLLOUT_LABEL: rollout_id})
        return [job["metadata"]["name"] for job in jobs if _leads_forward(job) and not _ended(job)]

    async def is_halted(self, spec: Spec, rollout_id: str) -> bool:
        """Whether no such Job is left, and no pod of one that was removed. Raises ApiError."""
        if spec.worker != "encode":
            return True
        if await self.forward_jobs(rollout_id):
            return False
        pods = await self._cluster.list(PODS, {objects.ROLLOUT_LABEL: rollout_id})
        over = ("Succeeded", "Failed")
        return not any(_leads_forward(pod) and (pod.get("status") or {}).get("phase") not in over for pod in pods)

    async def _candidate_pods(self, stable: JsonObject) -> list[JsonObject]:
        labels = stable["spec"]["selector"]["matchLabels"]
        component = f"{labels.get(objects.COMPONENT) or stable['metadata']['name']}-candidate"
        return await self._cluster.list(PODS, {**labels, objects.COMPONENT: component})

    async def _job(self, rollout: JsonObject, status: Status, wanted: JobWanted | None) -> JobSeen:
        if wanted is None:
            return JobSeen()
        name = objects.job_name(rollout["metadata"]["name"], status.rollout_id, wanted)
        found = await self._cluster.get(JOBS, name)
        if found is None:
            return JobSeen()
        if _has_failed(found):
            return JobSeen("failed", await self._last_word(name))
        succeeded = (found.get("status") or {}).get("succeeded")
        return JobSeen("succeeded", await self._last_word(name)) if succeeded else JobSeen("running")

    async def _last_word(self, job: str) -> Mapping[str, Any]:
        """The JSON object that a Job's pod left in its termination log; of several pods the last that left one."""
        answer: Mapping[str, Any] = {}
        pods = await self._cluster.list(PODS, {"job-name": job})
        for pod in sorted(pods, key=lambda one: str(one["metadata"].get("creationTimestamp", ""))):
            for container in (pod.get("status") or {}).get("containerStatuses") or []:
                message = ((container.get("state") or {}).get("terminated") or {}).get("message") or ""
                try:
                    value = json.loads(message.strip().rpartition("\n")[2] or "null")
                except json.JSONDecodeError:
                    value = {"error": message.strip()[-300:]}
                answer = value if isinstance(value, dict) and value else answer
        return answer

    def _check(
        self, rollout: JsonObject, spec: Spec, status: Status, stable: Scrape, candidate: Scrape
    ) -> Check | None:
        """A check, where a window of the interval's length has ended; the next one begins where it ended."""
        name = rollout["metadata"]["name"]
        if status.phase not in ANALYSED or status.checked_at is None:
            self._windows.pop(name, None)
            return None
        key = (status.rollout_id, status.phase, status.step, status.routed_at)
        window = self._windows.get(name)
        if window is None or window.key != key:
            self._windows[name] = Window(key, stable, candidate)
            return None
        if candidate.at - window.candidate.at < timedelta(seconds=spec.analysis.interval_seconds):
            return None
        self._windows[name] = Window(key, stable, candidate)
        return check(spec.analysis, (window.stable, stable), (window.candidate, candidate))


def _leads_forward(thing: JsonObject) -> bool:
    return (thing["metadata"].get("labels") or {}).get(objects.JOB_LABEL) in FORWARD


def _has_failed(job: JsonObject) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Failed" and c.get("status") == "True" for c in conditions)


def _ended(job: JsonObject) -> bool:
    return _has_failed(job) or bool((job.get("status") or {}).get("succeeded"))


def _is_rolled_out(deployment: JsonObject) -> bool:
    """Every pod is of the present template, and enough are available; also where it is scaled to zero."""
    status = deployment.get("status") or {}
    if int(status.get("observedGeneration", 0)) < int(deployment["metadata"].get("generation", 0)):
        return False
    replicas = deployment["spec"].get("replicas")
    if replicas == 0:
        return not status.get("replicas")
    present = int(status.get("replicas") or 0)
    return present == int(status.get("updatedReplicas") or 0) and int(status.get("availableReplicas") or 0) >= 1


def _is_candidate_ready(
    stable: JsonObject,
    found: JsonObject | None,
    wanted: CandidateWanted | None,
    rollout: JsonObject,
    chart_model: Mapping[str, str],
) -> bool:
    if found is None or wanted is None or not _is_rolled_out(found):
        return False
    body = objects.candidate_deployment(stable, wanted, rollout, chart_model)
    return objects.template_hash(found) == objects.template_hash(body)


def _confirms(of_stable: Scrape, generation: int) -> bool:
    """Whether every stable pod goes by this routing. Where there are none, none goes by another."""
    return all(
        samples is not None and samples.get(("feedmill_routing_generation", ())) == generation
        for samples in of_stable.pods.values()
    )


def _backfill(of_candidate: Scrape) -> dict[str, int]:
    """How far the backfill is, as the candidates read it from the database."""
    found: dict[str, int] = {}
    for samples in of_candidate.pods.values():
        for what in ("done", "total"):
            value = _value(samples, f"feedmill_backfill_{what}")
            if value is not None:
                found[what] = max(found.get(what, 0), int(value))
    return found


def _value(samples: Samples | None, name: str) -> float | None:
    return samples.get((name, ())) if samples is not None else None
