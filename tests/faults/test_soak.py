"""`make soak`: SOAK_SECONDS of load (an hour), a fault every SOAK_FAULT_SECONDS; the plot is .cache/faults/soak.png."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from faults import effects
from faults.conftest import REPORTS
from faults.soak import Record, Track, drifts, soak
from faults.verdict import judge


@pytest.mark.full_faults
@pytest.mark.skipif("SOAK_SECONDS" not in os.environ, reason="make soak")
def test_nothing_drifts(new_arena: Callable[..., Any]) -> None:
    began = time.monotonic()
    with new_arena() as arena:
        clean = effects.clean_run(arena)
        arena.start_load()
        record = soak(arena, float(os.environ["SOAK_SECONDS"]), float(os.environ.get("SOAK_FAULT_SECONDS", "120")))
        record.save(REPORTS)
        verdict = judge(arena, clean, [name for _, name in record.faults], began)
    verdict.violations += drifts(record)
    verdict.save(REPORTS / "soak-verdict.json")
    print(verdict.line(), flush=True)  # noqa: T201
    assert not verdict.violations, "\n".join(verdict.violations[:20])


def test_a_leak_is_found_and_a_level_is_none() -> None:
    steady = [300.0 + (number % 7) for number in range(100)]
    leak = [300.0 + 2 * number for number in range(100)]
    few = [20.0] * 100

    def drift(rss: list[float]) -> list[str]:
        track = Track(rss, few, few, few, few, few, few)
        return drifts(Record(at=list(range(100)), connections=few, tracks={"encode": track}))

    assert drift(steady) == []
    assert "resident memory" in drift(leak)[0]
