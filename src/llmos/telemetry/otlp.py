"""Spans as OTLP's JSON (opentelemetry-proto, `ExportTraceServiceRequest`), and a file of them.

One line is one request, as the file exporter of OpenTelemetry's collector writes them and its file
receiver reads them. Needs nothing but msgspec.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmos.telemetry.spans import Attributes, Span, Value

MAX_TRACE_BYTES = 64 * 1024 * 1024
"""Of the file; then it becomes `traces.jsonl.1`, in the place of an older one."""

MAX_REMEMBERED = 8192
"""Attributes, with their values."""

_FAILED = 2


class TraceFile:
    """A sink of spans. `export` raises OSError."""

    def __init__(self, path: Path, resource: Attributes, version: str) -> None:
        self._path = path
        self._resource = resource
        self._version = version

    def export(self, spans: Sequence[Span]) -> None:
        """Append one line."""
        line = msgspec.json.encode(request(spans, self._resource, self._version)) + b"\n"
        if self._path.exists() and self._path.stat().st_size + len(line) > MAX_TRACE_BYTES:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._path.touch(mode=0o600)
        with self._path.open("ab") as file:
            file.write(line)


def request(spans: Sequence[Span], resource: Attributes, version: str) -> dict[str, Any]:
    """All spans of one export, for msgspec to write as JSON."""
    scoped = {
        "scope": {"name": "llmos", "version": version},
        "spans": [_span(span) for span in spans],
    }
    return {
        "resourceSpans": [
            {"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scoped]}
        ]
    }


def _span(span: Span) -> dict[str, Any]:
    context = span.context
    made: dict[str, Any] = {
        "traceId": context.trace_id,
        "spanId": context.span_id,
        "name": span.name,
        "kind": int(span.kind),
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "events": [
            {"timeUnixNano": str(m.at_ns), "name": m.name, "attributes": _attributes(m.attributes)}
            for m in span.moments
        ],
        "status": {"code": _FAILED, "message": span.error} if span.error else {},
    }
    if context.parent_id:
        made["parentSpanId"] = context.parent_id
    return made


def _attributes(attributes: Attributes) -> list[msgspec.Raw]:
    return [_attribute(key, value) for key, value in attributes.items()]


@functools.lru_cache(maxsize=MAX_REMEMBERED, typed=True)
def _attribute(key: str, value: Value) -> msgspec.Raw:
    """Most of one request are those of the one before it."""
    return msgspec.Raw(msgspec.json.encode({"key": key, "value": _value(value)}))


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # 64 bits do not fit into JSON's numbers
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    return {"arrayValue": {"values": [{"stringValue": item} for item in value]}}
