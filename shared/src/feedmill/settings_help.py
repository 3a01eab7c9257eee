"""The table of settings that ``--help`` prints and the README shows: made from the groups themselves."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from feedmill.settings import Group, variable


def rows(groups: Iterable[type[Group]]) -> list[tuple[str, str, str]]:
    """(environment variable, default, what it means) of every setting in ``groups``."""
    return [
        (variable(name, info), _default(info), info.description or "")
        for group in groups
        for name, info in group.model_fields.items()
    ]


def describe(groups: Iterable[type[Group]]) -> str:
    """The settings as indented lines for a terminal."""
    lines = []
    for name, default, meaning in rows(groups):
        lines.append(f"  {name}" + (f"  [{default}]" if default else ""))
        if meaning:
            lines.append(f"      {meaning}")
    return "\n".join(lines)


def _default(info: FieldInfo) -> str:
    value = info.default
    if info.default_factory is not None or value is PydanticUndefined or value is None:
        return ""
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() == "guest" else value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
