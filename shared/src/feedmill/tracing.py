"""Traces: W3C headers are carried from request to result; with OpenTelemetry installed, a span is made of each message.

Spans need the extra ``feedmill[tracing]`` and ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or its traces variant); OpenTelemetry's
own environment variables say the rest. Without them this module only carries headers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from feedmill.broker.letters import Headers, trace_headers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trace:
    """One message's trace: the headers for its result, and how to end its span."""

    headers: Headers
    end: Callable[[str], None]


Tracer = Callable[[Mapping[str, Any] | None], Trace]


def _no_span(_: str) -> None:
    return None


def carry(headers: Mapping[str, Any] | None) -> Trace:
    """A trace without a span: the request's trace headers come back as they are."""
    return Trace(trace_headers(headers), _no_span)


def make_tracer(worker: str) -> Tracer:
    """The tracer that the environment asks for."""
    wanted = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not wanted or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return carry
    try:
        return _open_telemetry(worker)
    except ImportError:
        log.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: pip install feedmill[tracing]"
        )
        return carry


def _open_telemetry(worker: str) -> Tracer:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"feedmill-{worker}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return span_tracer(provider, worker)


def span_tracer(provider: Any, worker: str) -> Tracer:
    """A tracer that makes one consumer span a message with ``provider``, a child of the span in its headers."""
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = provider.get_tracer("feedmill")
    propagator = TraceContextTextMapPropagator()

    def start(headers: Mapping[str, Any] | None) -> Trace:
        carried = trace_headers(headers)
        parent = propagator.extract({name.lower(): value for name, value in carried.items()})
        span = tracer.start_span(f"{worker} process", context=parent, kind=trace.SpanKind.CONSUMER)
        carried = {name: value for name, value in carried.items() if name.lower() not in propagator.fields}
        propagator.inject(carried, context=trace.set_span_in_context(span))

        def end(outcome: str) -> None:
            span.set_attribute("feedmill.outcome", outcome)
            span.end()

        return Trace(carried, end)

    return start
