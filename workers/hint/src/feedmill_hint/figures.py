"""The index's figures for Prometheus, taken when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from feedmill_hint.follow import Follower

GAUGES = {
    "vectors": ("vectors", "Vectors in the index that answers hints, or in the first one while it is loaded"),
    "expected": ("loading_vectors", "Vectors that the load under way is to bring; 0: none is"),
    "bytes": ("bytes", "Memory of the index, as far as it grows with the vectors"),
    "age_seconds": ("age_seconds", "Time since the index was last known to be like the database"),
    "lag_seconds": ("lag_seconds", "From the write of the last change that was found to its being found"),
    "recall": ("recall", "Share of the ten best that searches find, by sampled exact checks; 1 while exact"),
    "probes": ("probes", "Lists that a search looks through; 0 while exact"),
}


class IndexFigures(Collector):
    """Registered as long as the follower runs."""

    def __init__(self, follower: Follower, worker: str) -> None:
        self._follower = follower
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        state = self._follower.state()
        if state.get("kind") == "exact":
            state["recall"] = 1.0
        for key, (name, text) in GAUGES.items():
            gauge = GaugeMetricFamily(f"feedmill_index_{name}", text, labels=["worker"])
            if isinstance(value := state.get(key), (int, float)):
                gauge.add_metric([self._worker], value)
            yield gauge
