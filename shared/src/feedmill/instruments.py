"""What every part of a worker reports to."""

from __future__ import annotations

from dataclasses import dataclass, field

from feedmill.health import Health
from feedmill.lifecycle import Shutdown
from feedmill.metrics import Metrics
from feedmill.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Instruments:
    """Health for the probes, metrics for Prometheus, a tracer for spans, and when all of it is to end."""

    health: Health
    metrics: Metrics
    tracer: Tracer
    shutdown: Shutdown = field(default_factory=Shutdown)
