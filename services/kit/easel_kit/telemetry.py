"""Traces (OpenTelemetry) and metrics (Prometheus), set up once per process.

A trace crosses services in gRPC metadata and, where work waits in a table, as a W3C `traceparent`
(https://www.w3.org/TR/trace-context/) beside the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import prometheus_client
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACER = trace.get_tracer("easel")


def configure_tracing(service: str, otlp_endpoint: str = "") -> Callable[[], None]:
    """Installs the tracer provider; returns what flushes and closes it. A second call does nothing.

    Args:
        service: `service.name` of every span.
        otlp_endpoint: OTLP/gRPC collector; without one spans exist (so logs carry their ids) and
            go nowhere.
    """
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return lambda: None
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    if otlp_endpoint:
        insecure = not otlp_endpoint.startswith("https://")
        provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint, insecure=insecure))
        )
    trace.set_tracer_provider(provider)
    return provider.shutdown


def current_traceparent() -> str:
    """The current span as W3C traceparent; empty outside a span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


@contextmanager
def span(name: str, *, traceparent: str = "", **attributes: str | float) -> Iterator[trace.Span]:
    """Runs a block in a span, joined to `traceparent` where one is given and well formed."""
    parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    base = parent if parent is not None else otel_context.get_current()
    with _TRACER.start_as_current_span(name, context=base, attributes=attributes) as current:
        yield current


@contextmanager
def joined(traceparent: str) -> Iterator[None]:
    """Runs a block inside the trace of `traceparent` without a span of its own: for a log line.

    A span costs several times what the line does.
    """
    token = otel_context.attach(_PROPAGATOR.extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        otel_context.detach(token)


def serve_metrics(listen: str) -> Callable[[], None]:
    """Serves `/metrics` of this process on `host:port` from its own thread; returns its stop.

    An empty address serves nothing.
    """
    if not listen:
        return lambda: None
    host, _, port = listen.rpartition(":")
    server, thread = prometheus_client.start_http_server(int(port), addr=host)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop
