"""The table over a run: nothing that failed may be missing from it."""

from __future__ import annotations

import json
from pathlib import Path

from faults.summary import Row, Summary
from faults.verdict import Verdict


def test_every_row_and_the_total_say_what_was_seen(tmp_path: Path) -> None:
    bad = Verdict(7, ["broker_cut"], 20.0, 50, 48, 1, 0, {"broker_cut": 3.25}, lost=1, violations=["lost: m"])
    rows = [
        Row("good", True, 30.4, Verdict(7, [], 20.0, 60, 55, 5, 2, {"start": 0.5})),
        Row("bad", False, 9.0, bad),
        Row("broken", False, 1.0, None, "encode not ready"),
    ]
    summary = Summary(seed=7, run=2, queues="classic", rows=rows)
    path = summary.save(tmp_path)
    told = path.read_text()
    assert "Run 2, seed 7, classic queues: 3 tests, 2 failed, 110 accepted, 1 lost, 0 wrong effects" in told
    assert "| `good` | 60 | 55 | 5 | 2 | 0 | 0 | 0.5 s | 0 | 30 s |" in told
    assert "| `bad` | 50 | 48 | 1 | 0 | 1 | 0 | 3.2 s | 1 | 9 s |" in told
    assert "no accounting: encode not ready" in told
    lines = [line for line in told.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {11}
    assert json.loads(path.with_suffix(".json").read_text())["rows"][1]["verdict"]["violations"] == ["lost: m"]
