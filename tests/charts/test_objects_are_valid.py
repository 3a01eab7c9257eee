"""Every object of every value set, against the schemas of Kubernetes, of KEDA and of the Prometheus operator."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus

from charts.tools import CHARTS, KEDA, MONITORING, Object, helm, objects, one
from charts.value_sets import UMBRELLA_SETS, WORKER_SETS

OLDEST, NEWEST = 29, 37
MODELS = {
    "ScaledObject": keda.ScaledObject,
    "TriggerAuthentication": keda.TriggerAuthentication,
    "PodMonitor": prometheus.PodMonitor,
    "ServiceMonitor": prometheus.ServiceMonitor,
    "PrometheusRule": prometheus.PrometheusRule,
}
SETS = [
    *(pytest.param("worker", values, id=f"worker-{name}") for name, values in WORKER_SETS.items()),
    *(pytest.param("feedmill", values, id=f"feedmill-{name}") for name, values in UMBRELLA_SETS.items()),
]


def validate(found: Object, minor: int) -> None:
    """Raises what the validators raise; a field that the models do not know is an error too."""
    model = MODELS.get(found["kind"])
    if model is None:
        kubernetes_validate.validate(found, f"1.{minor}", strict=True)
        return
    parsed = model.model_validate(found)
    assert parsed.model_dump(by_alias=True, exclude_unset=True, mode="json") == found


def rendered(chart: str, values: Object, minor: int) -> list[Object]:
    return objects(chart, values, apis=(KEDA, *MONITORING), version=f"1.{minor}.0")


@pytest.mark.parametrize(("chart", "values"), SETS)
def test_every_object_is_valid_on_the_newest_kubernetes(chart, values):
    found = rendered(chart, values, NEWEST)
    names = [(item["kind"], item["metadata"]["name"]) for item in found]
    assert len(names) == len(set(names)), "two objects of one name"
    for item in found:
        validate(item, NEWEST)


@pytest.mark.parametrize("minor", range(OLDEST, NEWEST + 1))
def test_every_object_is_valid_on_every_supported_kubernetes(minor):
    for values in (UMBRELLA_SETS["everything"], UMBRELLA_SETS["demo"]):
        for item in rendered("feedmill", values, minor):
            validate(item, minor)


@pytest.mark.parametrize("kind", ["Deployment", "NetworkPolicy", *MODELS])
def test_the_validators_notice_a_field_that_does_not_exist(kind):
    found = one(rendered("worker", WORKER_SETS["everything"], NEWEST), kind)
    validate(found, NEWEST)
    found["spec"]["replicaz"] = 1
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        validate(found, NEWEST)


def test_the_oldest_kubernetes_is_the_one_that_the_charts_name():
    for chart in ("worker", "feedmill"):
        assert yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())["kubeVersion"] == f">=1.{OLDEST}.0-0"


@pytest.mark.parametrize("chart", ["worker", "feedmill"])
def test_lint_has_nothing_to_say(chart):
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHARTS / chart))


def test_the_umbrella_asks_for_the_worker_chart_of_this_version():
    worker = yaml.safe_load((CHARTS / "worker" / "Chart.yaml").read_text())
    umbrella = yaml.safe_load((CHARTS / "feedmill" / "Chart.yaml").read_text())
    assert {needed["version"] for needed in umbrella["dependencies"]} == {worker["version"]} == {umbrella["version"]}
    assert worker["appVersion"] == umbrella["appVersion"]


@pytest.mark.parametrize("chart", ["worker", "feedmill"])
def test_template_names_start_with_the_charts_own(chart):
    prefix = {"worker": "feedmill-worker.", "feedmill": "feedmill."}[chart]
    for file in (CHARTS / chart / "templates").rglob("*.tpl"):
        for name in re.findall(r'define "([^"]+)"', file.read_text()):
            assert name.startswith(prefix), file


def test_a_packaged_chart_holds_its_workers(tmp_path):
    helm("package", str(CHARTS / "feedmill"), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("feedmill-*.tgz")
    assert "feedmill-toxic" in helm("template", "feedmill", str(package))
