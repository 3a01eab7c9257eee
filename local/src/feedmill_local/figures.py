"""A worker's figures, out of the text that ``/metrics`` answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

PREFIX = "feedmill_"
ANSWERED = "answered"


@dataclass(frozen=True)
class Figures:
    """What a worker has done since it started.

    ``p50_seconds`` and ``p95_seconds`` are of the time from receipt to acknowledgement, estimated from a histogram;
    None before the first message.
    """

    received: int = 0
    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    p50_seconds: float | None = None
    p95_seconds: float | None = None


def parse(text: str, worker: str) -> Figures:
    """The figures of ``worker``.

    Raises:
        ValueError: ``text`` is not in Prometheus's format.
    """
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples if sample.labels.get("worker") == worker]
    buckets = _buckets(samples, "handle_seconds")
    return Figures(
        received=_total(samples, "messages_received_total"),
        answered=_total(samples, "messages_settled_total", outcome=ANSWERED),
        failed=_total(samples, "messages_failed_total"),
        in_flight=_total(samples, "messages_in_flight"),
        p50_seconds=quantile(0.5, buckets),
        p95_seconds=quantile(0.95, buckets),
    )


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """The value below which ``share`` of the observations lie, from (upper bound, cumulative count), ascending.

    Linear within a bucket, as PromQL's ``histogram_quantile``; what lies above the last finite bound counts as that
    bound. None without observations.
    """
    if not buckets or not buckets[-1][1]:
        return None
    rank = share * buckets[-1][1]
    lower_bound = lower_count = 0.0
    for bound, count in buckets:
        if count >= rank and count > lower_count:
            if math.isinf(bound):
                return lower_bound
            return lower_bound + (bound - lower_bound) * (rank - lower_count) / (count - lower_count)
        lower_bound, lower_count = bound, count
    return lower_bound


def _total(samples: Iterable[Sample], name: str, **labels: str) -> int:
    wanted = labels.items()
    return round(
        sum(sample.value for sample in samples if sample.name == PREFIX + name and wanted <= sample.labels.items())
    )


def _buckets(samples: Iterable[Sample], name: str) -> list[tuple[float, float]]:
    found = (sample for sample in samples if sample.name == f"{PREFIX}{name}_bucket")
    return sorted((float(sample.labels["le"]), sample.value) for sample in found)
