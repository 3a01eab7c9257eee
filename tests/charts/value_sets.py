"""Values that the charts are rendered with: every switch, every worker, every source of a model."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from charts.tools import Object

WORKERS = ("toxic", "encode", "hint")
DIGEST = "sha256:" + "0" * 64
CA = {"ca": {"existingSecret": "my-ca", "key": "tls.crt"}}
MONITORS = {name: {"enabled": True, "labels": {"release": "p"}} for name in ("podMonitor", "serviceMonitor")}
METRICS = {**MONITORS, "prometheusRule": {"enabled": True, "labels": {"release": "p"}}}

MODELS: dict[str, Object] = {
    "image": {"source": "image"},
    "package": {"source": "image", "uri": "pkg://my_models"},
    "pvc": {"source": "pvc", "path": "toxic/v2", "pvc": {"claimName": "models"}},
    "ociImage": {"source": "ociImage", "ociImage": {"reference": f"registry.example/models@{DIGEST}"}},
    "hub": {"source": "hub", "uri": "hf://owner/name@0123abc", "hub": {"tokenSecret": "hub"}},
    "hub-shared": {"source": "hub", "uri": "hf://owner/name@0123abc", "hub": {"cacheClaim": "cache"}},
}

SNAPSHOT: Object = {"volume": "pvc", "claimName": "hint-snapshots"}

EVERYTHING: Object = {
    "image": {"registry": "registry.example/team", "digest": DIGEST, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "broker": CA,
    "database": {"name": "website", **CA},
    "model": {**MODELS["pvc"], "settings": {"FEEDMILL_THRESHOLD": 0.25, "FEEDMILL_MAX_TOKENS": 128}},
    "settings": {"FEEDMILL_PREFETCH": 64, "FEEDMILL_MAX_BODY_BYTES": 1048576, "FEEDMILL_UPSERT": True},
    "drainTimeoutSeconds": 12.5,
    "autoscaling": {"enabled": True, "annotations": {"autoscaling.keda.sh/paused-replicas": "3"}},
    "networkPolicy": {
        "brokerPeers": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "rabbit"}}}],
        "databasePeers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "extraEgress": [{"ports": [{"protocol": "TCP", "port": 4318}]}],
    },
    "metrics": METRICS,
    "serviceAccount": {"annotations": {"a": "b"}},
    "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel:4318"}],
    "extraEnvFrom": [{"secretRef": {"name": "more", "optional": True}}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "podLabels": {"team": "feed"},
    "podAnnotations": {"secret.reloader.stakater.com/auto": "true"},
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "low",
    "runtimeClassName": "nvidia",
    "topologySpreadConstraints": [
        {"topologyKey": "kubernetes.io/hostname", "maxSkew": 2, "whenUnsatisfiable": "ScheduleAnyway"}
    ],
}

NOTHING: Object = {
    "replicas": 2,
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "serviceAccount": {"create": False},
}

HOST: Object = {"broker": {"host": "rabbit.example", "vhost": "site", "existingSecret": "rabbit-default-user"}}

WORKER_SETS: dict[str, Object] = {
    **{worker: {"worker": worker} for worker in WORKERS},
    **{f"model-{name}": {"worker": "encode", "model": model} for name, model in MODELS.items()},
    "snapshot-pvc": {"worker": "hint", "snapshot": SNAPSHOT},
    "snapshot-emptyDir": {"worker": "hint", "snapshot": {"volume": "emptyDir"}},
    "everything": EVERYTHING,
    "nothing": NOTHING,
    "host": HOST,
    "autoscaled": {"worker": "hint", "autoscaling": {"enabled": True}},
    "autoscaled-amqp": {"autoscaling": {"enabled": True, "protocol": "amqp"}},
    "autoscaled-host": {**HOST, "autoscaling": {"enabled": True}},
    "no-scrape": {"networkPolicy": {"scrapePeers": []}},
    **{f"only-{name}": {"metrics": {name: {"enabled": True}}} for name in METRICS},
}


def for_worker(values: Object, worker: str) -> Object:
    """The same values for one worker; hint has no model."""
    found: dict[str, Any] = deepcopy(values) | {"worker": worker}
    if worker == "hint":
        found.pop("model", None)
        found["snapshot"] = SNAPSHOT
    return found


UMBRELLA_SETS: dict[str, Object] = {
    "defaults": {},
    **{f"{worker}-alone": {other: {"enabled": other == worker} for other in WORKERS} for worker in WORKERS},
    "demo": {"demo": {"enabled": True}, "dashboard": {"enabled": True}},
    "everything": {worker: for_worker(EVERYTHING, worker) for worker in WORKERS},
    "autoscaled-demo": {
        "demo": {"enabled": True},
        **{worker: {"autoscaling": {"enabled": True}} for worker in WORKERS},
    },
    "global": {
        "global": {
            "image": {"registry": "registry.example", "tag": "1.2.3"},
            "imagePullSecrets": [{"name": "registry"}],
            "broker": {"existingSecret": "b", **CA},
            "database": {"existingSecret": "d", "name": "site"},
        }
    },
}
