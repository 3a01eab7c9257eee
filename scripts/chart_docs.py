"""Write each chart's values.schema.json and the table of values in its README.md, from its commented values.yaml.

In values.yaml, comment lines that start with ``# -- `` and those that follow are the description of the key below;
``# @schema {...}`` adds to the JSON schema that is inferred from the default. Objects are closed: what is not in
values.yaml is refused, unless the schema says otherwise. ``{"$settings": "model"}`` stands for the settings of that
group, so that a chart refuses a setting that no worker reads; ``{"$like": "broker"}`` for the schema of the worker
chart's value of that name. ``--check`` only compares.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package that nothing else needs

from feedmill.settings import BatchSettings, BrokerSettings, Group, LogSettings, ModelSettings, StoreSettings
from feedmill.settings_help import rows
from feedmill_encode.settings import UpkeepSettings
from feedmill_hint.settings import FollowSettings, HintSettings

CHARTS = Path(__file__).resolve().parent.parent / "deploy" / "helm"
NAMES = ("worker", "feedmill")
BEGIN = "<!-- values: written by make charts-docs -->\n"
END = "<!-- end of values -->\n"

SETTINGS: dict[str, tuple[type[Group], ...]] = {
    "model": (ModelSettings,),
    "worker": (BrokerSettings, StoreSettings, BatchSettings, LogSettings, UpkeepSettings, FollowSettings, HintSettings),
}
# The chart writes these itself, from values of their own.
OWNED = frozenset(
    {"FEEDMILL_MODEL", "FEEDMILL_MODEL_CACHE", "FEEDMILL_DRAIN_TIMEOUT_SECONDS", "FEEDMILL_INDEX_SNAPSHOT_DIR"}
)
# Credentials, which come from a Secret through `extraEnv` and are never written into a Deployment.
SECRET = frozenset({"FEEDMILL_QDRANT_API_KEY"})

Schema = dict[str, Any]


class ValuesError(Exception):
    """values.yaml can't be documented; the text says which line, and what was expected."""


@dataclass(frozen=True)
class Value:
    """One key of values.yaml. ``children`` are its keys' values where it is an object with any."""

    path: str
    default: Any
    description: str
    schema: Schema
    children: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def comment_above(lines: list[str], line: int, indent: int) -> tuple[str, Schema]:
    """The description and the added schema in the comment lines right above ``line``, at the same indentation."""
    start = line
    while start > 0 and lines[start - 1].startswith(" " * indent + "#"):
        start -= 1
    comment = [text.strip().removeprefix("#").strip() for text in lines[start:line]]
    described: list[str] | None = None
    schema: Schema = {}
    for text in comment:
        if text.startswith("-- "):
            described = [text.removeprefix("-- ")]
        elif text.startswith("@schema "):
            schema |= json.loads(text.removeprefix("@schema "))
        elif described is not None:
            described.append(text)
    return " ".join(described or []), schema


def values_of(node: Any, lines: list[str], parent: str = "") -> tuple[Value, ...]:
    """The values below a YAML mapping. Raises ValuesError for one without a description."""
    found = []
    for key, value in node.value:
        path = f"{parent}.{key.value}" if parent else str(key.value)
        mark = key.start_mark
        description, schema = comment_above(lines, mark.line, mark.column)
        is_block = isinstance(value, yaml.MappingNode) and bool(value.value) and not value.flow_style
        is_free = is_block and schema.get("additionalProperties") is not None and not described_inside(value, lines)
        children = values_of(value, lines, path) if is_block and not is_free else ()
        if not description and not children:
            raise ValuesError(f"values.yaml:{mark.line + 1}: {path}: expected a comment '# -- ...' above it")
        default = yaml.SafeLoader("").construct_document(value)
        found.append(Value(path, default, description, schema, children))
    return tuple(found)


def described_inside(node: Any, lines: list[str]) -> bool:
    """Whether the keys of an open object have descriptions of their own."""
    marks = [key.start_mark for key, _ in node.value]
    return any(comment_above(lines, mark.line, mark.column)[0] for mark in marks)


def read_values(folder: Path) -> tuple[Value, ...]:
    text = (folder / "values.yaml").read_text(encoding="utf-8")
    return values_of(yaml.compose(text, Loader=yaml.SafeLoader), text.splitlines())


# --- Schema ---------------------------------------------------------------------------------------------------------


def type_of(default: Any) -> str | None:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(default))


def settings_schema(name: str) -> Schema:
    """An object with the settings of these groups, and no other."""
    names = sorted(
        row[0] for row in rows(SETTINGS[name]) if row[0].startswith("FEEDMILL_") and row[0] not in OWNED | SECRET
    )
    properties = {setting: {"type": ["string", "number", "boolean"]} for setting in names}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def worker_value(name: str) -> Value:
    """A value of the worker chart."""
    return next(value for value in read_values(CHARTS / "worker") if value.name == name)


def schema_of(value: Value) -> Schema:
    """The JSON schema of a value: inferred from its default and its children, and what its comment adds."""
    schema: Schema = {"description": value.description} if value.description else {}
    kind = type_of(value.default)
    # A whole number as a default does not mean that fractions are wrong, unless the schema names the smallest one.
    if kind == "integer" and "exclusiveMinimum" in value.schema:
        kind = "number"
    if kind is not None and not {"enum", "const"} & value.schema.keys():
        schema["type"] = kind
    if kind == "object":
        schema["additionalProperties"] = False
    added = dict(value.schema)
    if group := added.pop("$settings", None):
        schema |= settings_schema(group)
    if name := added.pop("$like", None):
        return schema_of(worker_value(name)) | schema
    schema |= added
    if value.children:
        schema["properties"] = {child.name: schema_of(child) for child in value.children}
    return schema


def render_schema(values: tuple[Value, ...], title: str) -> str:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "additionalProperties": False,
        "properties": {value.name: schema_of(value) for value in values},
    }
    return json.dumps(schema, indent=2) + "\n"


# --- README ---------------------------------------------------------------------------------------------------------


def leaves(values: tuple[Value, ...]) -> list[Value]:
    found = []
    for value in values:
        if value.description and not value.children:
            found.append(value)
        found += leaves(value.children)
    return found


def render_table(values: tuple[Value, ...]) -> str:
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for value in leaves(values):
        default = "" if value.default in ("", None) else f"`{json.dumps(value.default)}`"
        choices = value.schema.get("enum")
        meaning = value.description + (f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else "")
        lines.append(f"| `{value.path}` | {default.replace('|', '&#124;')} | {meaning.replace('|', '&#124;')} |")
    return "\n" + "\n".join(lines) + "\n\n"


def with_table(readme: str, table: str) -> str:
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(readme):
        raise ValuesError(f"README.md: expected the lines {BEGIN.strip()} and {END.strip()}")
    return pattern.sub(lambda _: BEGIN + table + END, readme)


def outputs(folder: Path) -> dict[Path, str]:
    """The files that are written for one chart, with their content."""
    values = read_values(folder)
    readme = folder / "README.md"
    return {
        folder / "values.schema.json": render_schema(values, f"Values of the chart {folder.name}"),
        readme: with_table(readme.read_text(encoding="utf-8"), render_table(values)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a file is not up to date")
    check = parser.parse_args().check
    try:
        wanted = {path: text for name in NAMES for path, text in outputs(CHARTS / name).items()}
    except ValuesError as error:
        print(f"chart_docs: {error}", file=sys.stderr)
        return 1
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(CHARTS)}: out of date: make charts-docs", file=sys.stderr)
        else:
            path.write_text(wanted[path], encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
