"""The Kubernetes objects that a rollout needs, made from the stable worker's Deployment. Pure functions."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from feedmill_rollouts.observed import CandidateWanted, JobWanted, RoutingWanted
from feedmill_rollouts.spec import JsonObject, Model, Spec

GROUP = "feedmill.dev"
MODEL_ANNOTATION = f"{GROUP}/model"
"""On the stable worker's pod template: the key of the model. Changing it restarts the pods. The operator's alone."""
HASH_ANNOTATION = f"{GROUP}/template"
ROLLOUT_LABEL, JOB_LABEL = f"{GROUP}/rollout", f"{GROUP}/job"
"""On Jobs and their pods: the rollout's id, and the Job's kind."""
ROUTING_ANNOTATION = f"{GROUP}/routing"
"""On the stable worker's pods: the routing's generation. A changed pod makes its kubelet refresh mounted ConfigMaps now
instead of within a minute or two."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
COMPONENT = "app.kubernetes.io/component"
NOT_MODEL = frozenset({"FEEDMILL_MODEL_CACHE"})
"""In the chart's ConfigMap of the model, but about where models are kept."""


def candidate_name(target: str) -> str:
    return f"{target[:52]}-candidate"


def model_config_name(target: str) -> str:
    """Read by the worker's pods after the chart's own ConfigMap: what is in here wins."""
    return f"{target}-model-rollout"


def routing_config_name(target: str) -> str:
    return f"{target}-routing"


def job_name(rollout: str, rollout_id: str, job: JobWanted) -> str:
    kind = f"drop-{fingerprint(job.arguments)[:6]}" if job.kind == "drop" else job.kind  # one rollout may drop several
    return f"{rollout[:30]}-{rollout_id}-{kind}-{job.attempt}"


def owner(rollout: JsonObject) -> JsonObject:
    metadata = rollout["metadata"]
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ModelRollout",
        "name": metadata["name"],
        "uid": metadata.get("uid", ""),
        "controller": True,
        "blockOwnerDeletion": False,  # the operator may not set it on what it has no right to update finalizers of
    }


def model_config(target: str, model: Model, chart_model: Mapping[str, str]) -> JsonObject:
    """The model, over what the chart says. Settings that came with the chart's model and that this one does not have
    are set to nothing, which workers read as not set: a threshold made for one model never judges another's scores.

    Nothing at all for the chart's own model: then it is Helm's to change again.
    """
    if model.key == model_of(chart_model).key:
        return _config(model_config_name(target), {})
    blank = dict.fromkeys(name for name in chart_model if name not in NOT_MODEL) if model.uri else {}
    return _config(model_config_name(target), dict.fromkeys(blank, "") | model.environment())


def model_of(data: Mapping[str, str]) -> Model:
    """The model that a worker's environment of this content names."""
    settings = {k: v for k, v in data.items() if v and k != "FEEDMILL_MODEL" and k not in NOT_MODEL}
    return Model(data.get("FEEDMILL_MODEL", ""), "", settings)


def _config(name: str, data: dict[str, str]) -> JsonObject:
    metadata: JsonObject = {"name": name, "labels": _own_labels()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def routing_config(target: str, routing: RoutingWanted, rollout: JsonObject) -> JsonObject:
    """Owned by the rollout: where that is deleted, the file goes, and nothing is routed."""
    content = {"mode": routing.mode, "share": routing.share_percent, "generation": routing.generation}
    found = _config(routing_config_name(target), {"routing.json": json.dumps(content)})
    found["metadata"]["ownerReferences"] = [owner(rollout)]
    return found


def candidate_deployment(
    stable: JsonObject, wanted: CandidateWanted, rollout: JsonObject, chart_model: Mapping[str, str]
) -> JsonObject:
    """The stable Deployment's copy with another model, role and name, and as many replicas as its share needs.

    Its pods carry another component label: no selector of the stable worker's (its Deployment, its disruption budget,
    its autoscaler) ever counts them.
    """
    template = copy.deepcopy(stable["spec"]["template"])
    component = f"{_component(stable)}-candidate"
    labels = {**(template["metadata"].get("labels") or {}), COMPONENT: component}
    annotations = {k: v for k, v in (template["metadata"].get("annotations") or {}).items() if k != MODEL_ANNOTATION}
    template["metadata"] = {"labels": labels, "annotations": annotations}
    blank = dict.fromkeys((name for name in chart_model if name not in NOT_MODEL), "")
    _set_environment(template, {**blank, **wanted.model.environment(), "FEEDMILL_ROLE": wanted.role})
    _rename_selectors(template["spec"], _component(stable), component)
    template["metadata"]["annotations"][HASH_ANNOTATION] = fingerprint(template)
    spec = {
        "replicas": candidate_replicas(stable, wanted.share_percent),
        "revisionHistoryLimit": 0,
        "selector": {"matchLabels": {**stable["spec"]["selector"]["matchLabels"], COMPONENT: component}},
        # Two roles must not consume the candidate's queue at the same time: a shadow is gone before a canary starts.
        "strategy": {"type": "Recreate"},
        "template": template,
    }
    if "progressDeadlineSeconds" in stable["spec"]:
        spec["progressDeadlineSeconds"] = stable["spec"]["progressDeadlineSeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": candidate_name(stable["metadata"]["name"]),
            "labels": {**labels, **_own_labels()},
            "ownerReferences": [owner(rollout)],
        },
        "spec": spec,
    }


def candidate_replicas(stable: JsonObject, share_percent: float) -> int:
    """From the share and the stable worker's present scale, whoever set that; at least one."""
    replicas = stable["spec"].get("replicas")
    present = 1 if replicas is None else int(replicas)
    return max(1, math.ceil(present * share_percent / 100))


def job(
    deployment: JsonObject, name: str, labels: Mapping[str, str], command: Sequence[str],
    environment: Mapping[str, str], rollout: JsonObject | None,
) -> JsonObject:  # fmt: skip
    """A Job that runs ``command`` as the Deployment's pods would: image, settings, Secrets, volumes.

    Its last word comes from the container's termination log. ``rollout``: with whose end it goes, or None.
    """
    template = copy.deepcopy(deployment["spec"]["template"])
    component = f"{_component(deployment)}-job"
    template["metadata"] = {
        "labels": {**(template["metadata"].get("labels") or {}), **labels, COMPONENT: component, "job-name": name}
    }
    pod = template["spec"]
    pod["restartPolicy"] = "Never"
    pod.pop("topologySpreadConstraints", None)
    container = worker_container(pod)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "args"):
        container.pop(probe, None)
    container["command"] = list(command)
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    _set_environment(template, environment)
    metadata: JsonObject = {"name": name, "labels": {**template["metadata"]["labels"], **_own_labels()}}
    if rollout is not None:
        metadata["ownerReferences"] = [owner(rollout)]
    spec = {"backoffLimit": 6, "ttlSecondsAfterFinished": 86_400, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def job_command(job: JobWanted, spec: Spec) -> list[str]:
    """What runs in a Job's container. Arguments from the outside are arguments, never parts of a shell's line."""
    module = f"feedmill_{spec.worker}"
    first = job.arguments[0] if job.arguments else ""
    return {
        "drain": ["python3", "-m", "feedmill.drain", "--worker", spec.worker],
        "backfill": ["python3", "-m", module, "backfill", "--json", "--rate", first],
        "restore": ["python3", "-m", module, "backfill", "--json", "--rate", first],
        "reactivate": ["python3", "-m", module, "spaces", "activate", first],
        "activate": ["python3", "-m", module, "spaces", "activate", first],
        "drop": ["python3", "-m", module, "spaces", "drop", first],
        "verify": ["python3", "-m", "feedmill_hint.verify", "--space", first],
    }[job.kind]


def worker_container(pod: JsonObject) -> JsonObject:
    """The container named worker, else the first."""
    containers: list[JsonObject] = pod["containers"]
    return next((container for container in containers if container.get("name") == "worker"), containers[0])


def metrics_port(pod: JsonObject) -> int:
    """The port of a pod's metrics: the one named http, else 8080."""
    ports: list[JsonObject] = worker_container(pod["spec"]).get("ports") or []
    return next((int(port["containerPort"]) for port in ports if port.get("name") == "http"), 8080)


def template_hash(deployment: JsonObject) -> str:
    """Of a candidate's Deployment: the fingerprint of the template that it was made with."""
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    return str(annotations.get(HASH_ANNOTATION, ""))


def fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _component(deployment: JsonObject) -> str:
    labels = deployment["spec"]["selector"]["matchLabels"]
    return str(labels.get(COMPONENT) or deployment["metadata"]["name"])


def _own_labels() -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "feedmill", "app.kubernetes.io/managed-by": "feedmill-rollouts"}


def _set_environment(template: JsonObject, values: Mapping[str, str]) -> None:
    container = worker_container(template["spec"])
    kept = [entry for entry in container.get("env") or [] if entry.get("name") not in values]
    container["env"] = kept + [{"name": name, "value": value} for name, value in values.items()]


def _rename_selectors(pod: JsonObject, before: str, after: str) -> None:
    """Spread the candidate's pods among themselves, not among the stable worker's."""
    for constraint in pod.get("topologySpreadConstraints") or []:
        labels = (constraint.get("labelSelector") or {}).get("matchLabels") or {}
        if labels.get(COMPONENT) == before:
            labels[COMPONENT] = after
