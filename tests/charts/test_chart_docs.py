"""scripts/chart_docs.py: the files that it writes are up to date, and what it makes of a commented values.yaml."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from charts.tools import CHARTS

REPOSITORY = Path(__file__).resolve().parents[2]


def _load():
    spec = importlib.util.spec_from_file_location("feedmill_chart_docs", REPOSITORY / "scripts" / "chart_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


docs = _load()


@pytest.mark.parametrize("chart", docs.NAMES)
def test_schema_and_readme_are_up_to_date(chart):
    for path, text in docs.outputs(CHARTS / chart).items():
        assert path.read_text() == text, f"{path.name}: run make charts-docs"


@pytest.mark.parametrize("chart", docs.NAMES)
def test_the_schema_is_one_and_takes_the_defaults(chart):
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    Draft7Validator.check_schema(schema)
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    assert list(Draft7Validator(schema).iter_errors(values)) == []


def schema_of(text: str, folder: Path) -> dict[str, object]:
    (folder / "values.yaml").write_text(text)
    return json.loads(docs.render_schema(docs.read_values(folder), "t"))["properties"]


def test_descriptions_run_over_lines_and_schemas_are_added(tmp_path):
    found = schema_of('# -- One\n# two.\n# @schema {"minimum": 1}\na: 5\n', tmp_path)
    assert found == {"a": {"description": "One two.", "type": "integer", "minimum": 1}}


def test_objects_are_closed_and_those_that_say_so_are_open(tmp_path):
    found = schema_of(
        'a:\n  # -- B.\n  b: x\n# -- C.\n# @schema {"additionalProperties": true}\nc:\n  d: 1\n', tmp_path
    )
    assert found["a"]["additionalProperties"] is False
    assert found["a"]["properties"] == {"b": {"description": "B.", "type": "string"}}
    assert found["c"]["additionalProperties"] is True
    assert "properties" not in found["c"]


def test_a_value_without_a_description_is_an_error(tmp_path):
    with pytest.raises(docs.ValuesError, match=r"values\.yaml:3: b: expected a comment"):
        schema_of("# -- A.\na: 1\nb: 2\n", tmp_path)


def test_settings_that_the_chart_owns_are_not_for_choice():
    names = docs.settings_schema("worker")["properties"].keys() | docs.settings_schema("model")["properties"].keys()
    assert {"FEEDMILL_PREFETCH", "FEEDMILL_FOLLOW", "FEEDMILL_THRESHOLD"} <= names
    assert not names & docs.OWNED
    assert not {name for name in names if re.search("KEY$|PASSWORD|TOKEN$|SECRET", name)}, "add them to SECRET"
    assert all(name.startswith("FEEDMILL_") for name in names)
