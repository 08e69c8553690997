"""A caller that traces finds our spans below its own; one that does not pays nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmos.sdk.transport import trace_headers


def test_a_request_is_part_of_the_callers_span() -> None:
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    assert trace_headers() == {}
    context = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        assert trace_headers() == {"traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-01"}
    assert trace_headers() == {}


def test_a_program_that_does_not_trace_never_loads_opentelemetry() -> None:
    code = (
        "import sys; from llmos.sdk.transport import trace_headers; assert trace_headers() == {};"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.call([sys.executable, "-c", code], timeout=60) == 0


def test_a_program_that_only_looked_at_opentelemetry_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    assert trace_headers() == {}
