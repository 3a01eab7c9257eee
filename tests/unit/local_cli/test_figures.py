"""A worker's figures are read out of what its /metrics really answers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from feedmill.metrics import MetricFamilies, Metrics
from feedmill_local.figures import Figures, parse, quantile


def exposition(*, workers: tuple[str, ...] = ("toxic",)) -> str:
    """Three workers may share the families: each has done ten times as much as the one before."""
    registry = CollectorRegistry()
    families = MetricFamilies(registry)
    for power, name in enumerate(workers):
        metrics = Metrics(families, name)
        for _ in range(10**power):
            metrics.received.inc()
            metrics.settled("answered")
            metrics.handle_seconds.observe(0.02)
        metrics.settled("dead")
        metrics.failed("reject", "bad_id")
        metrics.failed("retry", "bug")
        metrics.in_flight.set(3)
    return generate_latest(registry).decode()


def test_the_figures_of_one_worker() -> None:
    figures = parse(exposition(), "toxic")
    assert (figures.received, figures.answered, figures.failed, figures.in_flight) == (1, 1, 2, 3)
    assert figures.p50_seconds == pytest.approx(0.0175)


def test_workers_that_share_a_process_are_told_apart() -> None:
    text = exposition(workers=("toxic", "encode", "hint"))
    assert [parse(text, name).answered for name in ("toxic", "encode", "hint")] == [1, 10, 100]


def test_a_worker_that_has_done_nothing_has_no_latency() -> None:
    assert parse(exposition(), "hint") == Figures()


def test_what_is_not_prometheus_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse("feedmill_ready{worker= 1", "toxic")


def test_quantiles_are_linear_within_a_bucket() -> None:
    buckets = [(1.0, 10.0), (2.0, 20.0), (math.inf, 20.0)]
    assert quantile(0.5, buckets) == pytest.approx(1.0)
    assert quantile(0.75, buckets) == pytest.approx(1.5)


def test_what_lies_above_the_last_bound_counts_as_that_bound() -> None:
    assert quantile(0.95, [(1.0, 0.0), (60.0, 1.0), (math.inf, 100.0)]) == 60.0


def test_no_observations_no_quantile() -> None:
    assert quantile(0.5, []) is None
    assert quantile(0.5, [(1.0, 0.0), (math.inf, 0.0)]) is None


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8), st.floats(0.01, 1.0))
def test_a_quantile_lies_within_the_bounds_and_rises_with_its_share(counts: list[int], share: float) -> None:
    cumulative = [float(sum(counts[: position + 1])) for position in range(len(counts))]
    buckets = [(float(bound + 1), count) for bound, count in enumerate(cumulative)]
    value = quantile(share, buckets)
    if value is None:
        assert cumulative[-1] == 0
    else:
        assert 0 <= value <= len(counts)
        assert value >= (quantile(share / 2, buckets) or 0)
