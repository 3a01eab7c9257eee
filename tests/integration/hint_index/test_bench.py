from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[3] / "bench" / "hint"


def test_the_bench_runs_and_the_index_finds_what_there_is(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [sys.executable, str(BENCH), "--sizes", "500", "--queries", "64", "--json", str(results)]
    command += ["--plot", str(tmp_path / "growth.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(results.read_text())["clustered 500"]["recall_at_5"] == 1.0
    assert (tmp_path / "growth.png").stat().st_size > 0


def test_hints_go_through_the_queue_and_so_do_the_first_systems(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [
        sys.executable,
        str(BENCH),
        "--sizes",
        "--throughput",
        "300",
        "--messages",
        "40",
        "--first-messages",
        "1",
    ]
    done = subprocess.run([*command, "--json", str(results)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    figures = json.loads(results.read_text())["throughput 300"]
    assert figures["messages_per_second"] > 0
    assert figures["first_system_messages_per_second"] > 0
