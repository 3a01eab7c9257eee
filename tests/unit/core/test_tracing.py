"""Trace headers: carried from request to result, and with OpenTelemetry a span between."""

from __future__ import annotations

import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from feedmill.tracing import carry, make_tracer, span_tracer

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_trace_headers_and_no_others_are_carried() -> None:
    headers = {
        "traceparent": PARENT,
        "TraceState": "a=b",
        "baggage": "k=v",
        "b3": "1",
        "X-B3-TraceId": "2",
        "x-request-id": "3",
        "x-other": "4",
        "x-b3-sampled": 1,
    }
    trace = carry(headers)
    assert trace.headers == {name: headers[name] for name in list(headers)[:6]}
    trace.end("answered")
    assert carry(None).headers == {}


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_the_result_s_parent_is_a_child_of_the_request_s(
    name: str, provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    trace = span_tracer(provider, "toxic")({name: PARENT, "tracestate": "a=b", "x-request-id": "7"})
    trace.end("answered")
    (span,) = spans.get_finished_spans()
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == SPAN_ID
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert (span.name, span.kind) == ("toxic process", SpanKind.CONSUMER)
    assert span.attributes == {"feedmill.outcome": "answered"}
    parents = [value for header, value in trace.headers.items() if header.lower() == "traceparent"]
    assert parents == [f"00-{TRACE_ID}-{span.context.span_id:016x}-01"]
    assert trace.headers["tracestate"] == "a=b"
    assert trace.headers["x-request-id"] == "7"


@pytest.mark.parametrize("headers", [None, {}, {"traceparent": "nonsense"}, {"traceparent": 5}, {"traceparent": ""}])
def test_without_a_valid_parent_a_new_trace_begins(
    headers: dict[str, object] | None, provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    trace = span_tracer(provider, "toxic")(headers)
    trace.end("dead")
    (span,) = spans.get_finished_spans()
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" in trace.headers["traceparent"]


def test_no_endpoint_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert make_tracer("toxic") is carry
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert make_tracer("toxic") is carry


def test_a_missing_opentelemetry_is_said_and_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert make_tracer("toxic") is carry
    assert "feedmill[tracing]" in caplog.text
