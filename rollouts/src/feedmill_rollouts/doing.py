"""Doing: the cluster brought to what a status asks for, touching only what differs."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from feedmill_rollouts import objects
from feedmill_rollouts.cluster import CONFIG_MAPS, DEPLOYMENTS, JOBS, PODS, ApiError, Cluster, merge_patch
from feedmill_rollouts.looking import Looking
from feedmill_rollouts.observed import CandidateWanted, Desired, JobWanted
from feedmill_rollouts.spec import JsonObject, Model, Spec

log = logging.getLogger(__name__)

LINGER_SECONDS = 180
"""The longest that a kubelet takes to show a pod a changed ConfigMap, with room: for where nobody waits for it."""


class Doing:
    """Writes. Everything here is done again, without effect, at the next look."""

    def __init__(self, cluster: Cluster, looking: Looking) -> None:
        self._cluster = cluster
        self._looking = looking

    async def apply(self, rollout: JsonObject, spec: Spec, rollout_id: str, wanted: Desired) -> None:
        """Raises ApiError."""
        stable = await self._cluster.get(DEPLOYMENTS, spec.target)
        if wanted.routing is not None:
            await self.put_config(objects.routing_config(spec.target, wanted.routing, rollout))
        if stable is not None and wanted.routing is not None:
            await self.hasten(stable, wanted.routing.generation)
        if stable is not None and wanted.candidate is not None:
            await self._put_candidate(rollout, stable, wanted.candidate)
        if wanted.stable_model is not None:
            await self.promote(spec.target, stable, wanted.stable_model)
        is_free = not wanted.is_halted or await self._halt(spec, rollout_id)
        if wanted.job is not None and is_free:
            await self.put_job(rollout, spec, rollout_id, wanted.job)
        if not wanted.keeps_candidate:  # last: where the target is gone, Jobs are made from it
            name = objects.candidate_name(spec.target)
            if await self._cluster.get(DEPLOYMENTS, name) is not None:
                await self._cluster.delete(DEPLOYMENTS, name)

    async def put_config(self, body: JsonObject) -> None:
        name = body["metadata"]["name"]
        found = await self._cluster.get(CONFIG_MAPS, name)
        if found is None:
            await self._cluster.create(CONFIG_MAPS, body)
            return
        patch: JsonObject = {}
        if (found.get("data") or {}) != body["data"]:
            patch["data"] = merge_patch(found.get("data") or {}, body["data"])
        if _owners(body) - _owners(found):  # it was another ModelRollout's
            patch["metadata"] = {"ownerReferences": body["metadata"]["ownerReferences"]}
        if patch:
            await self._cluster.patch(CONFIG_MAPS, name, patch)

    async def hasten(self, stable: JsonObject, generation: int) -> None:
        """A kubelet refreshes a pod's ConfigMaps when the pod changes, else within minutes."""
        for pod in await self._looking.running(stable):
            if (pod["metadata"].get("annotations") or {}).get(objects.ROUTING_ANNOTATION) != str(generation):
                await self._annotate(pod, {objects.ROUTING_ANNOTATION: str(generation)})

    async def _annotate(self, pod: JsonObject, annotations: Mapping[str, str]) -> None:
        try:
            await self._cluster.patch(PODS, pod["metadata"]["name"], {"metadata": {"annotations": dict(annotations)}})
        except ApiError as error:
            if error.status not in (404, 409):  # it went away meanwhile
                raise

    async def _put_candidate(self, rollout: JsonObject, stable: JsonObject, wanted: CandidateWanted) -> None:
        chart = await self._looking.chart_model(stable["metadata"]["name"])
        body = objects.candidate_deployment(stable, wanted, rollout, chart)
        name, replicas = body["metadata"]["name"], body["spec"]["replicas"]
        found = await self._cluster.get(DEPLOYMENTS, name)
        if found is None:
            await self._cluster.create(DEPLOYMENTS, body)
        elif objects.template_hash(found) != objects.template_hash(body):
            # In one patch: what the new template has no more is null in it, and no moment is without a template.
            template = merge_patch(found["spec"]["template"], body["spec"]["template"])
            await self._cluster.patch(DEPLOYMENTS, name, {"spec": {"replicas": replicas, "template": template}})
        elif found["spec"].get("replicas") != replicas:
            await self._cluster.patch(DEPLOYMENTS, name, {"spec": {"replicas": replicas}})

    async def promote(self, target: str, stable: JsonObject | None, model: Model) -> None:
        """The ConfigMap first, then the annotation that restarts the pods: they start with the new model."""
        await self.put_config(objects.model_config(target, model, await self._looking.chart_model(target)))
        if stable is None:
            return
        annotations = stable["spec"]["template"]["metadata"].get("annotations") or {}
        if annotations.get(objects.MODEL_ANNOTATION) != model.key:
            template = {"metadata": {"annotations": {objects.MODEL_ANNOTATION: model.key}}}
            await self._cluster.patch(DEPLOYMENTS, target, {"spec": {"template": template}})

    async def _halt(self, spec: Spec, rollout_id: str) -> bool:
        """Remove the Jobs that lead forward; whether nothing of them runs any more."""
        if spec.worker == "encode":
            for name in await self._looking.forward_jobs(rollout_id):
                await self._cluster.delete(JOBS, name)
        return await self._looking.is_halted(spec, rollout_id)

    async def put_job(
        self, rollout: JsonObject, spec: Spec, rollout_id: str, wanted: JobWanted, *, is_last: bool = False
    ) -> None:
        """``is_last``: it outlives the ModelRollout, and waits itself for what nobody else waits for any more."""
        name = objects.job_name(rollout["metadata"]["name"], rollout_id, wanted) + ("-last" if is_last else "")
        if await self._cluster.get(JOBS, name) is not None:
            return
        source = await self._source(spec, wanted)
        if source is None:
            return
        chart = await self._looking.chart_model(spec.target)
        blank = dict.fromkeys((setting for setting in chart if setting not in objects.NOT_MODEL), "")
        environment = {**blank, **wanted.model.environment()} if wanted.model and wanted.kind != "verify" else {}
        command = objects.job_command(wanted, spec)
        if is_last and wanted.kind == "drain":
            command += ["--linger", str(LINGER_SECONDS)]
        labels = {objects.ROLLOUT_LABEL: rollout_id, objects.JOB_LABEL: wanted.kind}
        body = objects.job(source, name, labels, command, environment, None if is_last else rollout)
        await self._cluster.create(JOBS, body)

    async def _source(self, spec: Spec, wanted: JobWanted) -> JsonObject | None:
        """The Deployment that a Job is made from: the target, or where that is gone the candidate, its copy."""
        if wanted.kind == "verify" and spec.migrate is not None:
            found = await self._cluster.get(DEPLOYMENTS, spec.migrate.hint_ref)
            if found is None:
                log.error("no Deployment %s to measure the new space with", spec.migrate.hint_ref)
            return found
        stable = await self._cluster.get(DEPLOYMENTS, spec.target)
        return stable or await self._cluster.get(DEPLOYMENTS, objects.candidate_name(spec.target))


def _owners(thing: JsonObject) -> set[str]:
    return {str(owner.get("uid")) for owner in thing["metadata"].get("ownerReferences") or []}
