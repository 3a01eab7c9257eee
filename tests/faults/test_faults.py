"""Load, faults and an accounting. What each claim means: docs/reliability.md."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

import pytest

from faults.conftest import SEED
from faults.nemeses import NEMESES
from faults.verdict import Verdict

Run = Callable[..., Verdict]

SHORT_MIX = ("broker_cut", "killed_after_publish", "database_cut", "broker_half_open", "duplicate_keys")


def test_a_short_mix_of_faults(run_under: Run) -> None:
    """Two real workers and the quickest faults, in every test run: none of these is judged by how long it takes."""
    verdict = run_under(*SHORT_MIX, workers=("encode", "hint"))
    assert verdict.duplicates, "killed between publish and ack: its result must have come twice"


@pytest.mark.full_faults
@pytest.mark.parametrize("nemesis", NEMESES)
def test_one_nemesis_alone(run_under: Run, nemesis: str) -> None:
    run_under(nemesis, workers=("encode", "hint"))


@pytest.mark.full_faults
@pytest.mark.parametrize("number", range(4))
def test_many_nemeses_mixed(run_under: Run, number: int) -> None:
    """In an order that the seed decides."""
    names = Random(SEED + number).sample(sorted(NEMESES), 8)
    run_under(*names, seed=SEED + number)


@pytest.mark.full_faults
@pytest.mark.skipif("FAULTS_NEMESES" not in os.environ, reason="set FAULTS_NEMESES to a list: name,name,...")
def test_the_nemeses_that_were_asked_for(run_under: Run) -> None:
    """To find something again: FAULTS_NEMESES=broker_killed,database_slow FAULTS_SEED=7 make faults."""
    workers = os.environ.get("FAULTS_WORKERS", "toxic,encode,hint")
    run_under(*os.environ["FAULTS_NEMESES"].split(","), workers=tuple(workers.split(",")))
