"""What every part of a worker reports to."""

from __future__ import annotations

from dataclasses import dataclass

from feedmill.health import Health
from feedmill.metrics import Metrics
from feedmill.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Instruments:
    """Health for the probes, metrics for Prometheus, a tracer for spans."""

    health: Health
    metrics: Metrics
    tracer: Tracer
