"""What the rendered objects must be, whatever the values."""

from __future__ import annotations

import pytest

from charts.tools import KEDA, MONITORING, Object, objects, one, pod_spec
from charts.value_sets import EVERYTHING, HOST, MODELS, NOTHING, UMBRELLA_SETS, WORKERS, for_worker

COMPONENT = "app.kubernetes.io/component"


def worker_objects(values: Object | None = None) -> list[Object]:
    return objects("worker", values, apis=(KEDA, *MONITORING))


def umbrella(name: str) -> list[Object]:
    return objects("feedmill", UMBRELLA_SETS[name], apis=(KEDA, *MONITORING))


def volume(found: list[Object], name: str) -> Object:
    (match,) = (item for item in pod_spec(one(found, "Deployment"))["volumes"] if item["name"] == name)
    return match


def mounts(found: list[Object]) -> dict[str, Object]:
    (container,) = pod_spec(one(found, "Deployment"))["containers"]
    return {mount["name"]: mount for mount in container["volumeMounts"]}


def trigger_authentication(values: Object) -> dict[str, tuple[str, str]]:
    """KEDA's parameters: name to (Secret, key)."""
    found = one(
        worker_objects({**values, "autoscaling": {"enabled": True, **values.get("autoscaling", {})}}),
        "TriggerAuthentication",
    )
    return {item["parameter"]: (item["name"], item["key"]) for item in found["spec"]["secretTargetRef"]}


@pytest.mark.parametrize("name", ["defaults", "everything", "demo"])
def test_every_pod_passes_the_restricted_pod_security_standard(name):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a read-only root besides."""
    pods = [item for item in umbrella(name) if item["kind"] in {"Deployment", "Pod"}]
    assert len(pods) == {"defaults": 7, "everything": 7, "demo": 9}[name]
    for spec in map(pod_spec, pods):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # The rollout operator is the one that talks to Kubernetes.
        is_operator = spec.get("serviceAccountName", "").endswith("-rollouts")
        assert spec["automountServiceAccountToken"] is is_operator
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            assert all("hostPort" not in port for port in container.get("ports", []))
        allowed = {"emptyDir", "configMap", "secret", "persistentVolumeClaim", "image"}
        assert all(item.keys() - {"name"} <= allowed for item in spec["volumes"])


def test_non_root_and_seccomp_are_not_for_choice():
    found = worker_objects({"podSecurityContext": {"runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}}})
    assert pod_spec(one(found, "Deployment"))["securityContext"]["runAsNonRoot"] is True
    assert pod_spec(one(found, "Deployment"))["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_selectors_find_the_workers_own_pods_only():
    found = umbrella("everything")
    pods = {
        item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"]
        for item in found
        if item["kind"] == "Deployment"
    } | {item["metadata"]["name"]: item["metadata"]["labels"] for item in found if item["kind"] == "Pod"}
    selectors = []
    for item in found:
        spec = item.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector") or {}
        labels = selector if item["kind"] == "Service" else selector.get("matchLabels")
        if labels:
            components = [e["values"] for e in selector.get("matchExpressions", ()) if e["key"] == COMPONENT]
            selectors.append((item, labels, components))
    assert {item["kind"] for item, _, _ in selectors} == {
        "Deployment",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "PodMonitor",
        "Service",
        "ServiceMonitor",
    }
    for item, labels, components in selectors:
        if item["kind"] == "ServiceMonitor":
            continue  # selects Services
        chosen = [
            name
            for name, own in pods.items()
            if labels.items() <= own.items() and all(own[COMPONENT] in among for among in components)
        ]
        assert chosen == [f"feedmill-{item['metadata']['labels'][COMPONENT]}"]


def test_replicas_are_left_to_kubectl_scale_by_default():
    assert "replicas" not in one(worker_objects(), "Deployment")["spec"]


def test_replicas_may_be_fixed():
    assert one(worker_objects({"replicas": 0}), "Deployment")["spec"]["replicas"] == 0
    assert one(worker_objects(NOTHING), "Deployment")["spec"]["replicas"] == 2


def test_an_autoscaled_deployment_has_no_replicas():
    for item in umbrella("everything"):
        if item["kind"] == "Deployment" and not item["metadata"]["name"].endswith("-rollouts"):
            assert "replicas" not in item["spec"]


def test_nothing_is_made_that_is_switched_off():
    kinds = {item["kind"] for item in worker_objects(NOTHING)}
    assert kinds == {"Deployment", "ConfigMap", "Pod"}


def test_keda_asks_the_management_api_by_default_and_counts_what_is_unacknowledged_too():
    (trigger,) = one(worker_objects({"autoscaling": {"enabled": True}}), "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["protocol"] == "http"
    assert "excludeUnacknowledged" not in trigger["metadata"]
    assert trigger_authentication({}) == {"host": ("feedmill-broker", "RABBITMQ_MANAGEMENT_URL")}
    assert trigger_authentication({"autoscaling": {"protocol": "amqp"}}) == {
        "host": ("feedmill-broker", "RABBITMQ_URL")
    }


def test_keda_asks_a_named_host_with_user_and_password():
    (trigger,) = one(worker_objects({**HOST, "autoscaling": {"enabled": True}}), "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["host"] == "http://rabbit.example:15672/"
    assert trigger["metadata"]["vhostName"] == "site"
    assert set(trigger_authentication(HOST)) == {"username", "password"}


def test_keda_trusts_the_same_ca():
    assert trigger_authentication(EVERYTHING)["ca"] == ("my-ca", "tls.crt")
    assert one(worker_objects(EVERYTHING), "ConfigMap", "feedmill-toxic-scaler")["data"] == {"tls": "enable"}


def test_all_references_of_a_scaled_object_exist():
    found = worker_objects(EVERYTHING)
    scaled = one(found, "ScaledObject")["spec"]
    assert one(found, "Deployment", scaled["scaleTargetRef"]["name"])
    (trigger,) = scaled["triggers"]
    assert one(found, "TriggerAuthentication", trigger["authenticationRef"]["name"])


@pytest.mark.parametrize(
    ("source", "uri", "kind", "read_only"),
    [
        ("pvc", "file:///models/toxic/v2", "persistentVolumeClaim", True),
        ("ociImage", "file:///models", "image", True),
        ("hub", "hf://owner/name@0123abc", "emptyDir", False),
        ("hub-shared", "hf://owner/name@0123abc", "persistentVolumeClaim", False),
    ],
)
def test_one_value_says_where_the_model_comes_from(source, uri, kind, read_only):
    found = worker_objects({"model": MODELS[source]})
    assert one(found, "ConfigMap", "feedmill-toxic-model")["data"]["FEEDMILL_MODEL"] == uri
    assert kind in volume(found, "model")
    assert mounts(found)["model"]["readOnly"] is read_only


@pytest.mark.parametrize("source", ["image", "package"])
def test_a_model_in_the_image_needs_no_volume(source):
    assert "model" not in mounts(worker_objects({"model": MODELS[source]}))


def test_another_model_restarts_the_pods_and_nothing_else_of_the_deployment_changes():
    def deployment(model: Object) -> Object:
        return one(worker_objects({"model": model}), "Deployment")

    one_model, another = (deployment({"uri": f"pkg://{name}"}) for name in ("a", "b"))
    sums = [item["spec"]["template"]["metadata"]["annotations"].pop("checksum/model") for item in (one_model, another)]
    assert sums[0] != sums[1]
    assert one_model == another


def test_only_a_worker_with_a_hub_may_reach_the_web():
    def ports(values: Object) -> set[int]:
        rules = one(worker_objects(values), "NetworkPolicy")["spec"]["egress"]
        return {port["port"] for rule in rules for port in rule["ports"]}

    assert ports({}) == {53, 5671, 5672, 27017}
    assert ports({"model": MODELS["hub"]}) == {53, 443, 5671, 5672, 27017}
    assert ports({"broker": {"host": "rabbit", "port": 5673}}) == {53, 5673, 27017}


def test_an_image_is_named_by_digest_where_there_is_one():
    (container,) = pod_spec(one(worker_objects(EVERYTHING), "Deployment"))["containers"]
    assert container["image"] == f"registry.example/team/feedmill-toxic@{EVERYTHING['image']['digest']}"


def test_global_values_reach_every_worker():
    found = umbrella("global")
    for worker in WORKERS:
        spec = pod_spec(one(found, "Deployment", f"feedmill-{worker}"))
        (container,) = spec["containers"]
        assert container["image"] == f"registry.example/feedmill-{worker}:1.2.3"
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["RABBITMQ_URL"]["valueFrom"]["secretKeyRef"] == {"name": "b", "key": "RABBITMQ_URL"}
        assert environment["MONGO_URI"]["valueFrom"]["secretKeyRef"] == {"name": "d", "key": "MONGO_URI"}
        assert environment["DATABASE_NAME"]["value"] == "site"


def test_workers_alone_and_together_are_the_same():
    """But for the umbrella's own defaults: hint's resources."""
    together = umbrella("defaults")
    for worker in ("toxic", "encode"):
        alone = worker_objects({"worker": worker})
        for item in alone:
            assert item == one(together, item["kind"], item["metadata"]["name"])


def test_the_demos_secrets_are_those_that_the_workers_read():
    found = umbrella("autoscaled-demo")
    secrets = {item["metadata"]["name"]: item["stringData"] for item in found if item["kind"] == "Secret"}
    wanted = set()
    for item in found:
        if item["kind"] in {"Deployment", "Pod"}:
            for entry in (entry for part in pod_spec(item)["containers"] for entry in part.get("env", [])):
                if "valueFrom" in entry:
                    wanted.add(tuple(entry["valueFrom"]["secretKeyRef"].values()))
        if item["kind"] == "TriggerAuthentication":
            wanted |= {(part["name"], part["key"]) for part in item["spec"]["secretTargetRef"]}
    assert all(key in secrets[name] for name, key in wanted)
    services = {item["metadata"]["name"] for item in found if item["kind"] == "Service"}
    assert {
        url.rpartition("@")[2].split(":")[0].split(".")[0]
        for values in secrets.values()
        for url in values.values()
        if "@" in url
    } == services


def test_without_the_demo_there_is_no_secret_and_no_server():
    assert not {"Secret", "Service"} & {item["kind"] for item in umbrella("defaults")}


@pytest.mark.parametrize("worker", WORKERS)
def test_helm_test_runs_in_the_workers_image_with_its_credentials(worker):
    found = worker_objects(for_worker(EVERYTHING, worker))
    hook = one(found, "Pod")
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (test,), (own,) = hook["spec"]["containers"], pod_spec(one(found, "Deployment"))["containers"]
    assert test["image"] == own["image"]
    assert {entry["name"] for entry in test["env"]} <= {entry["name"] for entry in own["env"]}
    script = one(found, "ConfigMap", f"feedmill-{worker}-test")["data"]["send_one.py"]
    assert "async def ask" in script


@pytest.mark.parametrize(
    ("snapshot", "source"),
    [
        ({"volume": "pvc", "claimName": "c"}, {"persistentVolumeClaim": {"claimName": "c"}}),
        ({"volume": "emptyDir", "sizeLimit": "1Gi"}, {"emptyDir": {"sizeLimit": "1Gi"}}),
    ],
)
def test_snapshots_of_hints_index_are_kept_on_the_volume_that_is_asked_for(snapshot, source):
    found = worker_objects({"worker": "hint", "snapshot": snapshot})
    assert volume(found, "snapshots") == {"name": "snapshots", **source}
    place = mounts(found)["snapshots"]["mountPath"]
    (container,) = pod_spec(one(found, "Deployment"))["containers"]
    assert {"name": "FEEDMILL_INDEX_SNAPSHOT_DIR", "value": place} in container["env"]


def test_without_a_volume_there_are_no_snapshots():
    found = worker_objects({"worker": "hint"})
    assert "snapshots" not in mounts(found)
    (container,) = pod_spec(one(found, "Deployment"))["containers"]
    assert "FEEDMILL_INDEX_SNAPSHOT_DIR" not in {entry["name"] for entry in container["env"]}
