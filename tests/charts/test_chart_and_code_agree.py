"""What the charts say of the workers, checked against the workers' code, so that the two can't drift apart."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from charts.tools import CHARTS, KEDA, MONITORING, Object, objects, one, pod_spec, program
from charts.value_sets import EVERYTHING, HOST, MODELS, UMBRELLA_SETS, WORKERS, for_worker
from feedmill.broker.connect import CLOSE_TIMEOUT_SECONDS
from feedmill.contract import ROUTES
from feedmill.health import Health
from feedmill.metrics import MetricFamilies
from feedmill.models.uri import parse
from feedmill.probes import worker_routes
from feedmill.settings import (
    BatchSettings,
    BrokerSettings,
    LogSettings,
    ModelSettings,
    ProbeSettings,
    RoutingSettings,
    StoreSettings,
    read,
)
from feedmill.settings_help import rows
from feedmill_encode.settings import UpkeepSettings
from feedmill_hint.settings import FollowSettings, HintSettings

GROUPS = (
    BrokerSettings,
    StoreSettings,
    BatchSettings,
    ProbeSettings,
    LogSettings,
    ModelSettings,
    RoutingSettings,
    UpkeepSettings,
    FollowSettings,
    HintSettings,
)
NAMES = {name for name, _, _ in rows(GROUPS)}
SECRETS = {
    "RABBITMQ_URL": "amqps://user:password@rabbit.example:5671/site",
    "MONGO_URI": "mongodb://user:password@db.example/",
    "RABBITMQ_USER": "user",
    "RABBITMQ_PASSWORD": "password",
    "HF_TOKEN": "token",
}
NOT_OURS = {"HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN", "OTEL_EXPORTER_OTLP_ENDPOINT"}
PROBES_STOP_SECONDS = 10.0  # how long feedmill.probes waits for its thread


def worker_objects(values: Object) -> list[Object]:
    return objects("worker", values, apis=(KEDA, *MONITORING))


def container(found: list[Object]) -> Object:
    (only,) = pod_spec(one(found, "Deployment"))["containers"]
    return only


def environment(found: list[Object]) -> dict[str, str]:
    """What the worker would see: ConfigMaps resolved, Secrets filled in."""
    own = container(found)
    seen: dict[str, str] = {}
    for source in own.get("envFrom", []):
        reference = source.get("configMapRef", {"optional": True})
        if not reference.get("optional"):  # an optional one is the rollout operator's, which the chart does not make
            seen |= one(found, "ConfigMap", reference["name"])["data"]
    for entry in own["env"]:
        seen[entry["name"]] = entry["value"] if "value" in entry else SECRETS[entry["name"]]
    return seen


def exposed_paths() -> set[str]:
    return {path for path, _ in worker_routes(Health((), 1.0), CollectorRegistry(), {})}


ENVIRONMENTS = [
    *(pytest.param({"worker": worker}, id=worker) for worker in WORKERS),
    *(pytest.param({"model": model}, id=name) for name, model in MODELS.items()),
    pytest.param(HOST, id="host"),
    pytest.param(EVERYTHING, id="everything"),
]


@pytest.mark.parametrize("values", ENVIRONMENTS)
def test_the_worker_reads_what_the_chart_sets(values, monkeypatch):
    seen = environment(worker_objects(values))
    assert all(isinstance(value, str) for value in seen.values())
    assert set(seen) <= NAMES | NOT_OURS, "names that no worker reads"
    for name, value in seen.items():
        monkeypatch.setenv(name, value)
    settings = [read(group) for group in GROUPS]  # raises where a value is not what the code expects
    model = next(group for group in settings if isinstance(group, ModelSettings))
    if model.model:
        parse(model.model)


def test_every_value_arrives(monkeypatch):
    for name, value in environment(worker_objects(EVERYTHING)).items():
        monkeypatch.setenv(name, value)
    assert read(BrokerSettings).prefetch == 64
    assert read(BrokerSettings).max_body_bytes == 1_048_576
    assert read(BrokerSettings).tls_ca_file == "/etc/feedmill/broker-ca/ca.crt"
    assert read(BatchSettings).drain_timeout_seconds == 12.5
    assert read(StoreSettings).upsert is True
    assert read(StoreSettings).database == "website"
    assert read(ModelSettings).model == "file:///models/toxic/v2"
    assert read(ModelSettings).threshold == 0.25


@pytest.mark.parametrize("worker", WORKERS)
def test_the_command_is_a_module_with_an_entry_point(worker):
    command = container(worker_objects({"worker": worker}))["command"]
    assert command[:2] == ["python3", "-m"]
    assert importlib.util.find_spec(f"{command[2]}.__main__") is not None


@pytest.mark.parametrize("worker", WORKERS)
def test_probes_and_scrapes_ask_for_what_the_worker_serves(worker):
    found = worker_objects(for_worker(EVERYTHING, worker))
    own = container(found)
    (port,) = own["ports"]
    assert str(port["containerPort"]) == environment(found)["FEEDMILL_PROBE_PORT"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert own[probe]["httpGet"]["path"] in exposed_paths()
        assert own[probe]["httpGet"]["port"] == port["name"]
    assert own["livenessProbe"]["httpGet"]["path"] == own["startupProbe"]["httpGet"]["path"] == "/livez"
    assert own["readinessProbe"]["httpGet"]["path"] == "/readyz"
    (scrape,) = one(found, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert scrape["path"] in exposed_paths()
    assert scrape["port"] == port["name"]
    (rule,) = one(found, "NetworkPolicy")["spec"]["ingress"]
    assert [allowed["port"] for allowed in rule["ports"]] == [port["name"]]


@pytest.mark.parametrize("drain", [0.5, 25, 25.5, 600])
def test_the_grace_period_outlasts_the_drain(drain):
    found = worker_objects({"drainTimeoutSeconds": drain})
    assert float(environment(found)["FEEDMILL_DRAIN_TIMEOUT_SECONDS"]) == drain
    grace = pod_spec(one(found, "Deployment"))["terminationGracePeriodSeconds"]
    assert grace >= drain + CLOSE_TIMEOUT_SECONDS + PROBES_STOP_SECONDS


def test_the_default_drain_is_the_codes_own():
    values = yaml.safe_load((CHARTS / "worker" / "values.yaml").read_text())
    assert values["drainTimeoutSeconds"] == BatchSettings.model_fields["drain_timeout_seconds"].default


def test_one_replicas_share_of_the_queue_is_more_than_it_takes():
    values = yaml.safe_load((CHARTS / "worker" / "values.yaml").read_text())
    assert values["autoscaling"]["queueLength"] > BrokerSettings.model_fields["prefetch"].default


@pytest.mark.parametrize("worker", WORKERS)
def test_keda_watches_the_workers_queue(worker):
    found = worker_objects({"worker": worker, "autoscaling": {"enabled": True}})
    (trigger,) = one(found, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["queueName"] == ROUTES[worker].queue


def test_the_umbrella_runs_every_worker_that_there_is():
    found = objects("feedmill")
    assert {
        item["metadata"]["labels"]["app.kubernetes.io/component"] for item in found if item["kind"] == "Deployment"
    } == {*ROUTES, "rollouts"}


def exposed_metrics() -> set[str]:
    """Names as Prometheus stores them."""
    registry = CollectorRegistry()
    MetricFamilies(registry)
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]}


def expressions(value: Any) -> list[str]:
    """Every "expr" in a dashboard or a rule."""
    if isinstance(value, dict):
        own = [value["expr"]] if isinstance(value.get("expr"), str) else []
        return own + [found for item in value.values() for found in expressions(item)]
    return [found for item in value for found in expressions(item)] if isinstance(value, list) else []


def test_alerts_and_dashboard_ask_for_metrics_that_exist():
    dashboard = one(objects("feedmill", UMBRELLA_SETS["demo"]), "ConfigMap", "feedmill-dashboard")
    rules = one(worker_objects(EVERYTHING), "PrometheusRule")
    asked = expressions(rules) + expressions(json.loads(dashboard["data"]["feedmill.json"]))
    assert len(asked) > 10
    for expression in asked:
        names = set(re.findall(r"feedmill_\w+", expression))
        assert names <= exposed_metrics(), expression
        assert expression.count("(") == expression.count(")")
        assert expression.count("{") == expression.count("}")


def test_the_hooks_script_compiles_and_knows_every_worker():
    script = (CHARTS / "worker" / "files" / "send_one.py").read_text()
    scope: dict[str, Any] = {"__name__": "send_one"}
    exec(compile(script, "send_one.py", "exec"), scope)  # noqa: S102 (ours)
    assert set(scope["BODIES"]) == set(ROUTES)


def test_helm_is_there():
    assert program("helm").exists()
