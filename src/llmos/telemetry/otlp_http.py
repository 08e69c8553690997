"""A sink that sends spans to a collector over OTLP/HTTP: OpenTelemetry's own exporter, the extra
`otel`. Imported only where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmos.telemetry.spans import Attributes, Context, Kind, Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext


class CollectorRefused(OSError):
    """The collector did not take the spans, or does not answer. Why, OpenTelemetry only logs."""


class Collector:
    """`export` raises CollectorRefused; the exporter has tried for `timeout_s` by then."""

    def __init__(self, url: str, timeout_s: float, resource: Attributes, version: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._exporter = OTLPSpanExporter(endpoint=url, timeout=timeout_s)
        self._resource = Resource(dict(resource))
        self._scope = InstrumentationScope("llmos", version)

    def export(self, spans: Sequence[Span]) -> None:
        """In one body."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        body = [self._readable(span) for span in spans]
        if self._exporter.export(body) is not SpanExportResult.SUCCESS:
            raise CollectorRefused("the collector did not take the spans")

    def _readable(self, span: Span) -> ReadableSpan:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.status import Status, StatusCode

        context = span.context
        parent = context._replace(span_id=context.parent_id) if context.parent_id else None
        return ReadableSpan(
            name=span.name,
            context=_context(context),
            parent=_context(parent) if parent else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            events=[Event(m.name, dict(m.attributes), m.at_ns) for m in span.moments],
            kind=SpanKind.SERVER if span.kind is Kind.SERVER else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


def _context(context: Context) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    trace_id, span_id = int(context.trace_id, 16), int(context.span_id, 16)
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1))
