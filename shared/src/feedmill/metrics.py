"""Prometheus metrics of one worker. Durations in seconds; labels of few values; one registry per process."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SHARES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)


def new_registry() -> CollectorRegistry:
    """A registry with the process's own figures (memory, CPU, file descriptors, garbage collections)."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class MetricFamilies:
    """Every metric, with the label ``worker``: three workers in one process share the families."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"feedmill_{name}", text, ("worker", *labels), registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"feedmill_{name}", text, ("worker", *labels), registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"feedmill_{name}", text, ("worker", *labels), registry=registry, buckets=buckets)

        self.received = counter("messages_received_total", "Messages taken from the input queue")
        self.settled = counter("messages_settled_total", "Messages by how they ended here", "outcome")
        self.failed = counter("messages_failed_total", "Failures of single messages", "kind", "reason")
        self.in_flight = gauge("messages_in_flight", "Messages taken and not settled yet")
        self.handle_seconds = histogram("handle_seconds", "From receipt to acknowledgement", _LATENCY)
        self.step_seconds = histogram("step_seconds", "One step of one batch", _LATENCY, "step")
        self.batch_items = histogram("batch_items", "Messages in one batch of the model", _ITEMS)
        self.batch_tokens = histogram("batch_tokens", "Tokens in one batch of the model", _TOKENS)
        self.narrowed = counter("batches_narrowed_total", "Batches halved to find the guilty message", "step")
        self.loop_lag_seconds = histogram("loop_lag_seconds", "How late the event loop ran a timer", _LAG)
        self.consuming = gauge("consuming", "1 while a consumer is registered at the broker")
        self.sessions = counter("broker_sessions_total", "Sessions opened with the broker")
        self.sessions_lost = counter("broker_sessions_lost_total", "Sessions lost, by cause", "cause")
        self.paused = gauge("intake_paused", "1 while a dependency is away and no messages are taken")
        self.outages = counter("outages_total", "Times that a dependency was found away", "dependency")
        self.missing = counter("documents_missing_total", "Writes to posts or comments that do not exist")
        self.ready = gauge("ready", "1 while /readyz answers 200")
        self.loop_tasks = gauge("loop_tasks", "Tasks on the event loop: bounded by the prefetch, steady when idle")
        self.verdicts = counter("verdicts_total", "Messages judged, by verdict", "verdict")
        self.labelled = counter("labels_total", "Messages whose score of a label reached its threshold", "label")
        self.routing_share = gauge("routing_share_percent", "Share of the messages that is handed to a candidate")
        self.routing_mirrors = gauge("routing_mirrors", "1 while copies go to a candidate")
        self.routing_generation = gauge("routing_generation", "Generation of the routing file in effect")
        self.routing_valid = gauge("routing_file_valid", "0 while the routing file is unusable and the last one holds")
        self.mirrored = counter("mirrored_total", "Copies for a candidate, by what became of them", "outcome")
        self.not_taken = counter("hand_overs_refused_total", "Messages that no candidate's queue took: handled here")
        self.compared = counter("shadow_compared_total", "Verdicts of a shadow against the stable worker's", "verdict")
        self.backfill_done = gauge("backfill_done", "Posts that the backfill of a candidate's space has looked at")
        self.backfill_total = gauge("backfill_total", "Posts that it has to look at")
        self.score_drift = histogram(
            "shadow_score_drift", "Largest difference of a label's score between shadow and stable", _SHARES
        )


class Metrics:
    """The families of :class:`MetricFamilies`, bound to one worker's name."""

    def __init__(self, families: MetricFamilies, worker: str) -> None:
        self.registry = families.registry
        self.worker = worker
        self.received = families.received.labels(worker)
        self.in_flight = families.in_flight.labels(worker)
        self.handle_seconds = families.handle_seconds.labels(worker)
        self.batch_items = families.batch_items.labels(worker)
        self.batch_tokens = families.batch_tokens.labels(worker)
        self.loop_lag_seconds = families.loop_lag_seconds.labels(worker)
        self.consuming = families.consuming.labels(worker)
        self.sessions = families.sessions.labels(worker)
        self.paused = families.paused.labels(worker)
        self.ready = families.ready.labels(worker)
        self.missing = families.missing.labels(worker)
        self.loop_tasks = families.loop_tasks.labels(worker)
        self.routing_share = families.routing_share.labels(worker)
        self.routing_mirrors = families.routing_mirrors.labels(worker)
        self.routing_generation = families.routing_generation.labels(worker)
        self.routing_valid = families.routing_valid.labels(worker)
        self.not_taken = families.not_taken.labels(worker)
        self.score_drift = families.score_drift.labels(worker)
        self.outcomes: dict[str, int] = {}
        """How many messages ended how, for the worker's own report."""
        self._families = families
        # Looking a child up by its labels costs more than counting: those that every message or batch needs are kept.
        self._settled: dict[str, Counter] = {}
        self._step_seconds: dict[str, Histogram] = {}

    def settled(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        child = self._settled.get(outcome)
        if child is None:
            child = self._settled[outcome] = self._families.settled.labels(self.worker, outcome)
        child.inc()

    def backfill(self, done: int, total: int) -> None:
        """How far a backfill is; a worker that has none to tell of does not show these figures."""
        self._families.backfill_done.labels(self.worker).set(done)
        self._families.backfill_total.labels(self.worker).set(total)

    def failed(self, kind: str, reason: str) -> None:
        self._families.failed.labels(self.worker, kind, reason).inc()

    def step_seconds(self, step: str, seconds: float) -> None:
        child = self._step_seconds.get(step)
        if child is None:
            child = self._step_seconds[step] = self._families.step_seconds.labels(self.worker, step)
        child.observe(seconds)

    def narrowed(self, step: str) -> None:
        self._families.narrowed.labels(self.worker, step).inc()

    def session_lost(self, cause: str) -> None:
        self._families.sessions_lost.labels(self.worker, cause).inc()

    def verdict(self, verdict: str, labels: Iterable[str]) -> None:
        """One message was judged; ``labels`` are those whose score reached its threshold."""
        self._families.verdicts.labels(self.worker, verdict).inc()
        for label in labels:
            self._families.labelled.labels(self.worker, label).inc()

    def mirrored(self, outcome: str) -> None:
        self._families.mirrored.labels(self.worker, outcome).inc()

    def compared(self, verdict: str) -> None:
        self._families.compared.labels(self.worker, verdict).inc()

    def outage(self, dependency: str) -> None:
        self._families.outages.labels(self.worker, dependency).inc()


def new_metrics(worker: str, families: MetricFamilies | None = None) -> Metrics:
    """Metrics for one worker; in a registry of its own unless ``families`` are shared."""
    return Metrics(families or MetricFamilies(new_registry()), worker)
