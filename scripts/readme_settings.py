"""Write the table of settings into README.md, from the settings themselves. ``--check`` only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from feedmill.settings import (
    BatchSettings,
    BrokerSettings,
    Group,
    LogSettings,
    ModelSettings,
    ProbeSettings,
    RoutingSettings,
    StoreSettings,
)
from feedmill.settings_help import rows
from feedmill_encode.settings import UpkeepSettings
from feedmill_hint.settings import FollowSettings, HintSettings

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN = "<!-- settings: written by make docs -->\n"
END = "<!-- end of settings -->\n"

GROUPS: dict[str, tuple[type[Group], ...]] = {
    "every worker": (BrokerSettings, StoreSettings, BatchSettings, ProbeSettings, LogSettings),
    "toxic and encode": (ModelSettings, RoutingSettings),
    "encode": (UpkeepSettings,),
    "hint": (FollowSettings, HintSettings),
}


def table() -> str:
    lines = ["| setting | default | of | meaning |", "|---|---|---|---|"]
    for workers, groups in GROUPS.items():
        for name, default, meaning in rows(groups):
            shown = f"`{default}`" if default else ""
            lines.append(f"| `{name}` | {shown} | {workers} | {meaning.replace('|', '&#124;')} |")
    return "\n" + "\n".join(lines) + "\n\n"


def with_table(readme: str) -> str:
    """``readme`` with the present table between its markers."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md: expected the lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + table() + END + after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 where README.md is not up to date")
    check = parser.parse_args().check
    readme = README.read_text(encoding="utf-8")
    wanted = with_table(readme)
    if check and readme != wanted:
        print("README.md: the table of settings is out of date: make docs", file=sys.stderr)
        return 1
    if not check:
        README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
