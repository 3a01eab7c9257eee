"""One look at a ModelRollout and its surroundings, one decision, and the cluster brought to it.

The order makes every interruption harmless: the status is written first, with the version that was read; only what that
status asks for is done then, and it is done again, without effect, at the next look.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from feedmill_rollouts import objects
from feedmill_rollouts.analysis import Samples, Scrape, check
from feedmill_rollouts.cluster import CONFIG_MAPS, DEPLOYMENTS, EVENTS, JOBS, PODS, ROLLOUTS, ApiError, Cluster
from feedmill_rollouts.conditions import with_conditions
from feedmill_rollouts.decisions import ANALYSED, IDLE_SECONDS, decide
from feedmill_rollouts.observed import CandidateWanted, Desired, Event, JobSeen, JobWanted, Observation, RoutingWanted
from feedmill_rollouts.scrape import is_running, scrape
from feedmill_rollouts.spec import JsonObject, Model, Spec, SpecError, parse_spec
from feedmill_rollouts.status import Check, Status, stamp
from feedmill_rollouts.wishes import desired

log = logging.getLogger(__name__)

CONFLICT_SECONDS = 0.5
APPROVE, ABORT, RETRY = (f"{objects.GROUP}/{verb}" for verb in ("approve", "abort", "retry"))
LINGER_SECONDS = 180
"""The longest that a kubelet takes to show a pod a changed ConfigMap, with room: for where nobody waits for it."""


@dataclass(slots=True)
class Window:
    """The begin of the present analysis window: what the pods said then. Lost with a restart: a new window begins."""

    key: tuple[object, ...]
    stable: Scrape
    candidate: Scrape


class Reconciler:
    """Looks after the rollouts of one namespace. Holds nothing that a restart would miss."""

    def __init__(self, cluster: Cluster, pods: aiohttp.ClientSession, windows: dict[str, Window]) -> None:
        """``pods``: a session without credentials, for pods' metrics. ``windows``: by rollout, kept between looks."""
        self._cluster = cluster
        self._pods = pods
        self._windows = windows

    async def tick(self, name: str, now: datetime) -> float | None:
        """One step of a rollout; answers in how many seconds to look again, None where it is gone. Raises ApiError."""
        rollout = await self._cluster.get(ROLLOUTS, name)
        if rollout is None or rollout["metadata"].get("deletionTimestamp"):
            self._windows.pop(name, None)
            return None
        generation = int(rollout["metadata"].get("generation", 0))
        before = Status.parse(rollout.get("status") or {})
        try:
            spec = parse_spec(rollout.get("spec") or {})
        except SpecError as error:
            refused = with_conditions(None, replace(before, message=str(error)), Observation(), generation, now)
            await self._write(rollout, before, refused)
            return IDLE_SECONDS
        seen = await self._observe(rollout, spec, before, now)
        decision = decide(spec, before, seen, now)
        after = with_conditions(spec, decision.status, seen, generation, now)
        if not await self._write(rollout, before, after):
            return CONFLICT_SECONDS
        for event in decision.events:
            await self._tell(rollout, event, now)
        await self._apply(rollout, spec, after.rollout_id, decision.desired)
        return decision.next_seconds

    async def _write(self, rollout: JsonObject, before: Status, after: Status) -> bool:
        """Write the status where it changed; False where somebody else changed the object meanwhile."""
        wanted = after.to_json()
        if wanted == before.to_json():
            return True
        metadata = rollout["metadata"]
        version = {"resourceVersion": metadata["resourceVersion"]} if "resourceVersion" in metadata else {}
        try:
            await self._cluster.patch(ROLLOUTS, metadata["name"], {"metadata": version, "status": wanted}, "status")
        except ApiError as error:
            if error.status == 409:
                log.info("rollout %s changed meanwhile, looking again", metadata["name"])
                return False
            raise
        if after.phase != before.phase:
            log.info("rollout %s: %s -> %s: %s", metadata["name"], before.phase or "new", after.phase, after.message)
        return True

    async def _tell(self, rollout: JsonObject, event: Event, now: datetime) -> None:
        metadata = rollout["metadata"]
        reference = {
            "apiVersion": f"{objects.GROUP}/v1alpha1", "kind": "ModelRollout", "name": metadata["name"],
            "namespace": self._cluster.namespace, "uid": metadata.get("uid", ""),
        }  # fmt: skip
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:12]}", "namespace": self._cluster.namespace},
            "involvedObject": reference,
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:1000],
            "source": {"component": "feedmill-rollouts"},
            "firstTimestamp": stamp(now),
            "lastTimestamp": stamp(now),
            "count": 1,
        }
        try:
            await self._cluster.create(EVENTS, body)
        except ApiError as error:  # an event is a courtesy
            log.warning("no event: %s", error)

    # ---- looking

    async def _observe(self, rollout: JsonObject, spec: Spec, status: Status, now: datetime) -> Observation:
        annotations = rollout["metadata"].get("annotations") or {}
        said = {
            "approved": annotations.get(APPROVE, ""),
            "aborted": annotations.get(ABORT, ""),
            "retried": annotations.get(RETRY, ""),
        }
        stable = await self._cluster.get(DEPLOYMENTS, spec.target)
        if stable is None:
            return Observation(candidate_gone=True, **said)
        wanted = desired(spec, status)
        template_annotations = stable["spec"]["template"]["metadata"].get("annotations") or {}
        seen = Observation(
            target_found=True,
            stable_model=await self._stable_model(spec.target),
            stable_ready=_is_rolled_out(stable),
            promoted_key=template_annotations.get(objects.MODEL_ANNOTATION, ""),
            job=await self._job(rollout, status, wanted.job),
            **said,
        )
        if status.phase in ("", "Pending", "Completed", "Aborted", "Retaining", "Dropping"):
            return seen
        candidate = await self._cluster.get(DEPLOYMENTS, objects.candidate_name(spec.target))
        stable_pods = await self._running(stable)
        candidate_pods = await self._running_candidate(stable)
        of_stable = await scrape(self._pods, stable_pods, now)
        of_candidate = await scrape(self._pods, candidate_pods, now)
        model = await self._chart_model(spec.target)
        return replace(
            seen,
            routing_confirmed=_confirms(of_stable, status.routing_generation),
            candidate_ready=_is_candidate_ready(stable, candidate, wanted.candidate, rollout, model),
            candidate_gone=candidate is None and not await self._candidate_pods(stable),
            check=self._check(rollout, spec, status, of_stable, of_candidate),
            backfill=_backfill(of_candidate),
        )

    async def _running(self, deployment: JsonObject) -> list[JsonObject]:
        pods = await self._cluster.list(PODS, deployment["spec"]["selector"]["matchLabels"])
        return [pod for pod in pods if is_running(pod)]

    async def _candidate_pods(self, stable: JsonObject) -> list[JsonObject]:
        labels = stable["spec"]["selector"]["matchLabels"]
        component = f"{labels.get(objects.COMPONENT) or stable['metadata']['name']}-candidate"
        return await self._cluster.list(PODS, {**labels, objects.COMPONENT: component})

    async def _running_candidate(self, stable: JsonObject) -> list[JsonObject]:
        return [pod for pod in await self._candidate_pods(stable) if is_running(pod)]

    async def _chart_model(self, target: str) -> dict[str, str]:
        found = await self._cluster.get(CONFIG_MAPS, f"{target}-model")
        return dict((found or {}).get("data") or {})

    async def _stable_model(self, target: str) -> Model:
        """What the target's pods are told to run: the chart's ConfigMap, with the operator's own over it."""
        own = await self._cluster.get(CONFIG_MAPS, objects.model_config_name(target))
        data = {**await self._chart_model(target), **((own or {}).get("data") or {})}
        settings = {k: v for k, v in data.items() if v and k != "FEEDMILL_MODEL" and k not in objects.NOT_MODEL}
        return Model(data.get("FEEDMILL_MODEL", ""), "", settings)

    async def _job(self, rollout: JsonObject, status: Status, wanted: JobWanted | None) -> JobSeen:
        if wanted is None:
            return JobSeen()
        name = objects.job_name(rollout["metadata"]["name"], status.rollout_id, wanted)
        found = await self._cluster.get(JOBS, name)
        if found is None:
            return JobSeen()
        counts = found.get("status") or {}
        failed = any(c.get("type") == "Failed" and c.get("status") == "True" for c in counts.get("conditions") or [])
        if failed:
            return JobSeen("failed", await self._last_word(name))
        return JobSeen("succeeded", await self._last_word(name)) if counts.get("succeeded") else JobSeen("running")

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

    # ---- doing

    async def _apply(self, rollout: JsonObject, spec: Spec, rollout_id: str, wanted: Desired) -> None:
        """Bring the cluster to ``wanted``, touching only what differs."""
        stable = await self._cluster.get(DEPLOYMENTS, spec.target)
        if wanted.routing is not None:
            await self._put_config(objects.routing_config(spec.target, wanted.routing, rollout))
        if not wanted.keeps_candidate:
            name = objects.candidate_name(spec.target)
            if await self._cluster.get(DEPLOYMENTS, name) is not None:
                await self._cluster.delete(DEPLOYMENTS, name)
        if stable is None:
            return
        if wanted.routing is not None:
            await self._hasten(stable, wanted.routing.generation)
        if wanted.candidate is not None:
            await self._put_candidate(rollout, stable, wanted.candidate)
        if wanted.stable_model is not None:
            await self._promote(spec.target, stable, wanted.stable_model)
        if wanted.job is not None:
            name = objects.job_name(rollout["metadata"]["name"], rollout_id, wanted.job)
            await self._put_job(rollout, spec, stable, name, wanted.job)

    async def _put_config(self, body: JsonObject) -> None:
        name = body["metadata"]["name"]
        found = await self._cluster.get(CONFIG_MAPS, name)
        if found is None:
            await self._cluster.create(CONFIG_MAPS, body)
        elif found.get("data") != body["data"]:
            gone = dict.fromkeys(set(found.get("data") or {}) - set(body["data"]))
            await self._cluster.patch(CONFIG_MAPS, name, {"data": {**gone, **body["data"]}})

    async def _hasten(self, stable: JsonObject, generation: int) -> None:
        """A kubelet refreshes a pod's ConfigMaps when the pod changes, else within minutes."""
        for pod in await self._running(stable):
            if (pod["metadata"].get("annotations") or {}).get(objects.ROUTING_ANNOTATION) != str(generation):
                await self._annotate(pod, {objects.ROUTING_ANNOTATION: str(generation)})

    async def _annotate(self, pod: JsonObject, annotations: Mapping[str, str]) -> None:
        try:
            await self._cluster.patch(PODS, pod["metadata"]["name"], {"metadata": {"annotations": dict(annotations)}})
        except ApiError as error:
            if error.status not in (404, 409):  # it went away meanwhile
                raise

    async def _put_candidate(self, rollout: JsonObject, stable: JsonObject, wanted: CandidateWanted) -> None:
        body = objects.candidate_deployment(
            stable, wanted, rollout, await self._chart_model(stable["metadata"]["name"])
        )
        name = body["metadata"]["name"]
        found = await self._cluster.get(DEPLOYMENTS, name)
        if found is None:
            await self._cluster.create(DEPLOYMENTS, body)
        elif _template_hash(found) != _template_hash(body):
            # A merge patch keeps what a new template has no more: replacing it whole is what is meant.
            await self._cluster.patch(DEPLOYMENTS, name, {"spec": {**body["spec"], "template": None}})
            await self._cluster.patch(DEPLOYMENTS, name, {"spec": body["spec"]})
        elif found["spec"].get("replicas") != body["spec"]["replicas"]:
            await self._cluster.patch(DEPLOYMENTS, name, {"spec": {"replicas": body["spec"]["replicas"]}})

    async def _promote(self, target: str, stable: JsonObject, model: Model) -> None:
        """The ConfigMap first, then the annotation that restarts the pods: they start with the new model."""
        await self._put_config(objects.model_config(target, model, await self._chart_model(target)))
        annotations = stable["spec"]["template"]["metadata"].get("annotations") or {}
        if annotations.get(objects.MODEL_ANNOTATION) != model.key:
            template = {"metadata": {"annotations": {objects.MODEL_ANNOTATION: model.key}}}
            await self._cluster.patch(DEPLOYMENTS, target, {"spec": {"template": template}})

    async def _put_job(self, rollout: JsonObject, spec: Spec, stable: JsonObject, name: str, wanted: JobWanted) -> None:
        if await self._cluster.get(JOBS, name) is not None:
            return
        deployment = stable
        if wanted.kind == "verify" and spec.migrate is not None:
            found = await self._cluster.get(DEPLOYMENTS, spec.migrate.hint_ref)
            if found is None:
                log.error("no Deployment %s to measure the new space with", spec.migrate.hint_ref)
                return
            deployment = found
        chart = await self._chart_model(spec.target)
        blank = dict.fromkeys((setting for setting in chart if setting not in objects.NOT_MODEL), "")
        environment = {**blank, **wanted.model.environment()} if wanted.model and wanted.kind != "verify" else {}
        command = objects.job_command(wanted, spec)
        await self._cluster.create(JOBS, objects.job(deployment, name, command, rollout, environment))

    # ---- the end of a rollout's object

    async def forget(self, rollout: JsonObject) -> None:
        """The ModelRollout is deleted: stop routing, remove the candidate, and let a Job bring its messages back.

        Waits for nothing, so that no deletion can hang: the Job itself waits for the candidate's pods to go and for the
        stable pods to have seen the change. Raises ApiError, to be tried again.
        """
        name = rollout["metadata"]["name"]
        self._windows.pop(name, None)
        status = Status.parse(rollout.get("status") or {})
        try:
            spec = parse_spec(rollout.get("spec") or {})
        except SpecError:
            return  # it never was followed, or its candidate goes with it by its owner reference
        stable = await self._cluster.get(DEPLOYMENTS, spec.target)
        await self._cluster.delete(DEPLOYMENTS, objects.candidate_name(spec.target))
        if stable is None or status.phase in ("", "Pending", "Completed", "Aborted", "Retaining", "Dropping"):
            return
        generation = status.routing_generation + 1
        off = RoutingWanted(generation=generation)
        await self._put_config(objects.routing_config(spec.target, off, rollout))
        await self._hasten(stable, generation)
        if status.promoted and status.stable is not None and status.phase == "Promoting":
            await self._promote(spec.target, stable, status.stable)
        wanted = JobWanted("drain", 0)
        command = [*objects.job_command(wanted, spec), "--linger", str(LINGER_SECONDS)]
        job = objects.job(
            stable, f"{objects.job_name(name, status.rollout_id, wanted)}-last", command, rollout, {}, is_orphan=True
        )
        await self._cluster.create(JOBS, job)


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
    return _template_hash(found) == _template_hash(objects.candidate_deployment(stable, wanted, rollout, chart_model))


def _template_hash(deployment: JsonObject) -> str:
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    return str(annotations.get(objects.HASH_ANNOTATION, ""))


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


def utc_now() -> datetime:
    return datetime.now(UTC)
