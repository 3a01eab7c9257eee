"""The operator's part of the umbrella chart: its rights, and a CRD that says what the operator reads."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from charts.tools import CHARTS, objects, one
from feedmill_rollouts.spec import parse_spec

CRD = yaml.safe_load((CHARTS / "feedmill" / "files" / "modelrollout.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
TOXIC: dict[str, Any] = {
    "worker": "toxic",
    "targetRef": {"name": "feedmill-toxic"},
    "model": {"uri": "hf://owner/name", "revision": "0123abc", "settings": {"FEEDMILL_THRESHOLD": "0.4"}},
    "strategy": {"shadow": {"hold": "1h30m"}, "canary": [{"share": 5}, {"share": 50, "manual": True}]},
    "analysis": {"errorRate": 0.02, "latencyRatio": 2, "labelDrift": 0.1, "minimumSamples": 50, "interval": "30s"},
}
ENCODE: dict[str, Any] = {
    "worker": "encode",
    "targetRef": {"name": "feedmill-encode"},
    "model": {"uri": "pkg://new_encoder"},
    "strategy": {"migrate": {"rate": 100, "coverage": 0.999, "keepOld": "14d", "hintRef": {"name": "feedmill-hint"}}},
}


def every_object(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, child in (schema.get("properties") or {}).items():
        found += every_object(child, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        found += every_object(schema["items"], f"{path}[]")
    return found


def test_the_operator_may_do_little_in_its_own_namespace() -> None:
    found = objects("feedmill")
    assert not [item for item in found if item["kind"].startswith("Cluster") or "rbac" in item.get("roleRef", {})]
    rules = one(found, "Role")["rules"]
    assert not any("*" in rule[field] for rule in rules for field in ("apiGroups", "resources", "verbs"))
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert not {"secrets", "pods/exec", "pods/log", "serviceaccounts", "roles"} & resources


def test_the_operator_can_be_left_out() -> None:
    kinds = {item["kind"] for item in objects("feedmill", {"rollouts": {"enabled": False}})}
    assert not {"Role", "RoleBinding", "CustomResourceDefinition"} & kinds


def test_there_is_never_more_than_one_operator() -> None:
    deployment = one(objects("feedmill"), "Deployment", "feedmill-rollouts")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]["type"]) == (1, "Recreate")


def test_the_crd_is_upgraded_with_the_chart_and_kept_without_it() -> None:
    crd = one(objects("feedmill"), "CustomResourceDefinition")
    assert crd == CRD
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_every_field_is_explained() -> None:
    spec = SCHEMA["properties"]["spec"]
    silent = [path for path, schema in every_object(spec, "spec") if path != "spec" and "description" not in schema]
    assert [path for path in silent if not path.endswith("[]")] == []


@pytest.mark.parametrize("spec", [TOXIC, ENCODE], ids=["toxic", "encode"])
def test_what_the_schema_takes_the_operator_reads(spec: dict[str, Any]) -> None:
    jsonschema.validate({"spec": spec}, SCHEMA)
    parse_spec(spec)


def test_the_defaults_are_the_operators_own() -> None:
    """Where the API server fills in a default, the operator would have taken the same."""
    spec = SCHEMA["properties"]["spec"]["properties"]
    analysis = {name: field["default"] for name, field in spec["analysis"]["properties"].items()}
    assert parse_spec({**TOXIC, "analysis": analysis}).analysis == parse_spec({**TOXIC, "analysis": {}}).analysis
    migrate = spec["strategy"]["properties"]["migrate"]["properties"]
    defaults = {name: field["default"] for name, field in migrate.items() if "default" in field}
    both = [parse_spec({**ENCODE, "strategy": {"migrate": given}}).migrate for given in (defaults, {})]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    "change",
    [
        {"worker": "hint"},
        {"model": {}},
        {"strategy": {"canary": [{"share": 100}]}},
        {"strategy": {"canary": [{"share": 5, "hold": "soon"}]}},
        {"analysis": {"errorRate": 2}},
        {"targetRef": {"name": ""}},
    ],
)
def test_bad_specs_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"spec": {**TOXIC, **change}}, SCHEMA)
