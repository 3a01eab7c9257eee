"""From the pods' metrics to a verdict on the candidate. Pure: what was scraped comes in, a check goes out.

Counters are compared over one and the same window, the time between two scrapes, for stable and candidate alike. No
data, too few samples and pods that could not be read are Inconclusive, never a success.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client.parser import text_string_to_metric_families

from feedmill_rollouts.spec import Analysis
from feedmill_rollouts.status import Check, Verdict

Key = tuple[str, tuple[tuple[str, str], ...]]
Samples = Mapping[Key, float]
"""One pod's metrics: (name, sorted labels without ``worker``) to value."""

SETTLED = "feedmill_messages_settled_total"
LATENCY = "feedmill_handle_seconds_bucket"
STARTED = "process_start_time_seconds"
HANDLED = ("answered",)
FAILED = ("retried", "dead", "given_back", "dropped")
"""Outcomes of messages that were not handled. Handed over, handed back and lost ones are nobody's failure."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the pods of one Deployment said at one time; None for a pod that did not answer."""

    at: datetime
    pods: Mapping[str, Samples | None]

    @property
    def unreachable(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, samples in self.pods.items() if samples is None))


@dataclass(slots=True)
class Totals:
    """What happened in the window, over all pods that tell of the whole of it."""

    pods: int = 0
    handled: float = 0
    failed: float = 0
    latency: dict[float, float] = field(default_factory=dict)
    """Messages by the upper bound of their latency's bucket, cumulative, seconds."""
    verdicts: dict[str, float] = field(default_factory=dict)
    labels: dict[str, float] = field(default_factory=dict)
    compared: dict[str, float] = field(default_factory=dict)


def parse_metrics(text: str) -> Samples:
    """Raises ValueError where it is no Prometheus text."""
    return {
        (sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if k != "worker"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def totals(before: Scrape | None, after: Scrape) -> Totals:
    """What happened between two scrapes. A pod that is new, or was restarted, counts from its own start."""
    found = Totals()
    for name, samples in after.pods.items():
        if samples is None:
            continue
        earlier = before.pods.get(name) if before else None
        start = samples.get((STARTED, ()))
        if earlier is not None and earlier.get((STARTED, ())) != start:
            earlier = {}
        if earlier is None:
            # Not seen at the window's begin: usable only if it began to live in the window.
            if before is None or start is None or start < before.at.timestamp():
                continue
            earlier = {}
        found.pods += 1
        _add(found, ((key, value - earlier.get(key, 0.0)) for key, value in samples.items()))
    return found


def _add(found: Totals, deltas: Iterable[tuple[Key, float]]) -> None:
    for (name, pairs), delta in deltas:
        labels = dict(pairs)
        if name == SETTLED and labels.get("outcome") in HANDLED:
            found.handled += delta
        elif name == SETTLED and labels.get("outcome") in FAILED:
            found.failed += delta
        elif name == LATENCY:
            bound = float(labels.get("le", "inf"))
            found.latency[bound] = found.latency.get(bound, 0.0) + delta
        elif name == "feedmill_verdicts_total":
            _count(found.verdicts, labels.get("verdict", ""), delta)
        elif name == "feedmill_labels_total":
            _count(found.labels, labels.get("label", ""), delta)
        elif name == "feedmill_shadow_compared_total":
            _count(found.compared, labels.get("verdict", ""), delta)


def _count(counts: dict[str, float], name: str, delta: float) -> None:
    counts[name] = counts.get(name, 0.0) + delta


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """A quantile of a cumulative histogram, seconds, interpolated as Prometheus' histogram_quantile does; None where it
    is empty. In the last, unbounded bucket: the highest bound."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    wanted = share * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * ((wanted - below) / (count - below) if count > below else 1.0)
        lower, below = bound, count
    return lower


def check(analysis: Analysis, stable: tuple[Scrape | None, Scrape], candidate: tuple[Scrape | None, Scrape]) -> Check:
    """The verdict on one window."""
    at = candidate[1].at
    unreachable = candidate[1].unreachable + stable[1].unreachable
    ours, theirs = totals(*candidate), totals(*stable)
    figures: dict[str, float] = {}

    def judged(verdict: Verdict, reason: str) -> Check:
        return Check(verdict, reason, at, {name: round(value, 4) for name, value in figures.items()}, unreachable)

    if not ours.pods:
        return judged("Inconclusive", "no candidate pod's metrics over the whole window")
    if not theirs.pods:
        return judged("Inconclusive", "no stable pod's metrics over the whole window")
    count = ours.handled + ours.failed
    figures |= {"samples": count, "stableSamples": theirs.handled + theirs.failed}
    if count < analysis.minimum_samples:
        return judged(
            "Inconclusive", f"{count:g} samples of the candidate, expected at least {analysis.minimum_samples}"
        )
    error = ours.failed / count - theirs.failed / max(1.0, theirs.handled + theirs.failed)
    figures["errorRate"] = ours.failed / count
    if error > analysis.error_rate:
        return judged(
            "Fail", f"error rate {error:.2%} above the stable worker's, expected at most {analysis.error_rate:.2%}"
        )
    if figures["stableSamples"] < analysis.minimum_samples:
        text = (
            f"{figures['stableSamples']:g} samples of the stable worker, expected at least {analysis.minimum_samples}"
        )
        return judged("Inconclusive", text)
    for judge in (_latency, _drift):
        problem = judge(analysis, ours, theirs, figures)
        if problem is not None:
            return judged(*problem)
    return judged("Pass", "within all limits")


def _latency(analysis: Analysis, ours: Totals, theirs: Totals, figures: dict[str, float]) -> tuple[Verdict, str] | None:
    mine, stable = quantile(ours.latency, 0.95), quantile(theirs.latency, 0.95)
    if mine is None or stable is None or stable <= 0:
        return "Inconclusive", "no latencies"
    figures |= {"p95Seconds": mine, "stableP95Seconds": stable, "latencyRatio": mine / stable}
    if mine / stable > analysis.latency_ratio:
        return (
            "Fail",
            f"p95 latency {mine / stable:.2f} times the stable worker's, expected at most {analysis.latency_ratio:g}",
        )
    return None


def _drift(analysis: Analysis, ours: Totals, theirs: Totals, figures: dict[str, float]) -> tuple[Verdict, str] | None:
    """Verdicts on the same messages where there are copies; else the verdicts' and labels' frequencies."""
    paired = ours.compared.get("same", 0.0) + ours.compared.get("different", 0.0)
    if paired > 0:
        drift, what = ours.compared.get("different", 0.0) / paired, "verdicts that differ"
    elif ours.verdicts and theirs.verdicts:
        drift, what = _largest_difference(ours, theirs)
    elif ours.verdicts or theirs.verdicts:
        return "Inconclusive", "verdicts of one side only"
    else:
        return None  # an encoder gives none
    figures["labelDrift"] = drift
    if drift > analysis.label_drift:
        return "Fail", f"{what}: {drift:.2%}, expected at most {analysis.label_drift:.2%}"
    return None


def _largest_difference(ours: Totals, theirs: Totals) -> tuple[float, str]:
    mine, stable = max(1.0, sum(ours.verdicts.values())), max(1.0, sum(theirs.verdicts.values()))
    drifts = {"toxic": abs(ours.verdicts.get("toxic", 0.0) / mine - theirs.verdicts.get("toxic", 0.0) / stable)}
    for name in ours.labels.keys() & theirs.labels.keys():
        drifts[name] = abs(ours.labels[name] / mine - theirs.labels[name] / stable)
    name = max(drifts, key=lambda key: drifts[key])
    return drifts[name], f"share of {name} differs by"
