"""Spans: who is traced, what is sent, what happens to it when nobody takes it."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import ConfigError
from llmos.telemetry import export as exporting
from llmos.telemetry.config import TelemetryConfig
from llmos.telemetry.export import Exporter
from llmos.telemetry.otlp import TraceFile, request
from llmos.telemetry.otlp_http import Collector, CollectorRefused
from llmos.telemetry.setup import open_tracer
from llmos.telemetry.spans import Context, Kind, Moment, Span, parent_of
from llmos.telemetry.tracer import Trace, Tracer, begin, child_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RESOURCE = {"service.name": "llmos", "process.pid": 7}


def spans() -> list[Span]:
    root = Context(TRACE, "1" * 16, PARENT)
    attributes = {"a": "x", "n": 1 << 40, "f": 0.5, "b": True, "l": ["p", "q"]}
    moments = [Moment(1_700_000_000_000_000_005, "llmos.waiting", {"llmos.reason": "你好"})]
    return [
        Span(
            root,
            "chat m:1",
            1_700_000_000_000_000_001,
            1_700_000_000_000_000_009,
            Kind.SERVER,
            attributes,
            moments,
            "boom",
        ),
        Span(Context(TRACE, "2" * 16), "llmos.queue", 5, 6),
    ]


def test_a_caller_has_decided_whether_it_is_sampled() -> None:
    none, every = (Tracer(lambda batch: None, ratio=ratio, max_steps=1) for ratio in (0.0, 1.0))
    sampled, not_sampled = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
    made = none.begin(sampled)
    assert (made.trace_id, made.parent_id, made.is_sampled) == (TRACE, PARENT, True)
    assert made.span_id not in {PARENT, none.begin(sampled).span_id}
    assert begin(every, not_sampled) is None
    assert begin(none, None) is None
    assert begin(None, sampled) is None
    root = every.begin(None)
    assert root.is_sampled
    assert root.parent_id == ""
    assert parent_of(root.header) == root
    assert child_of(root).parent_id == root.span_id


def test_the_share_of_traced_requests_is_the_ratio() -> None:
    tracer = Tracer(lambda batch: None, ratio=0.25, max_steps=1)
    share = sum(tracer.begin(None).is_sampled for _ in range(4000)) / 4000
    assert 0.2 < share < 0.3


def test_of_many_steps_the_first_are_kept_and_all_are_counted() -> None:
    trace = Trace(Context(TRACE, PARENT), max_steps=2)
    for at in range(5):
        trace.step(at, 0.1, 1)
    assert [step.end_mono for step in trace.steps] == [0, 1]
    assert trace.num_steps == 5


def _as_proto_json(value: Any, key: str = "") -> Any:
    """OTLP's JSON writes ids in hex, where protobuf's writes bytes in base64."""
    if isinstance(value, dict):
        return {k: _as_proto_json(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_as_proto_json(v) for v in value]
    if key in {"traceId", "spanId", "parentSpanId"}:
        return base64.b64encode(bytes.fromhex(value)).decode()
    return value


class Received:
    """A collector that answers with `status`."""

    def __init__(self, status: int) -> None:
        self.status, self.bodies = status, list[bytes]()
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(received.status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Received]:
    received = Received(200)
    yield received
    received.close()


def test_a_file_says_what_opentelemetrys_own_exporter_sends(collector: Received) -> None:
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    sink = Collector(collector.url, 5, RESOURCE, "1.2")
    sink.export(spans())
    sink.close()
    sent = ExportTraceServiceRequest.FromString(collector.bodies[0])
    ours = ExportTraceServiceRequest()
    ParseDict(_as_proto_json(request(spans(), RESOURCE, "1.2")), ours)
    (theirs,), (mine,) = sent.resource_spans, ours.resource_spans
    by_key = {a.key: a.value for a in theirs.resource.attributes}
    for attribute in mine.resource.attributes:
        assert by_key[attribute.key] == attribute.value
    assert theirs.scope_spans[0].scope == mine.scope_spans[0].scope
    for one, other in zip(theirs.scope_spans[0].spans, mine.scope_spans[0].spans, strict=True):
        one.ClearField("flags")  # says whether the parent is remote, which spans do not know
        assert one == other


def test_a_collector_that_refuses_is_an_error(collector: Received) -> None:
    collector.status = 400
    sink = Collector(collector.url, 1, RESOURCE, "1")
    with pytest.raises(CollectorRefused):
        sink.export(spans())
    sink.close()


def test_a_file_is_private_and_is_turned_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "traces.jsonl"
    sink = TraceFile(path, RESOURCE, "1")
    sink.export(spans())
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr("llmos.telemetry.otlp.MAX_TRACE_BYTES", path.stat().st_size + 1)
    sink.export(spans()[:1])
    old, new = path.with_name("traces.jsonl.1").read_text(), path.read_text()
    assert len(json.loads(old)["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 2
    assert len(json.loads(new)["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 1


class Sink:
    def __init__(self) -> None:
        self.spans, self.is_closed = list[Span](), False
        self.error: OSError | None = None

    def export(self, spans: Sequence[Span]) -> None:
        if self.error is not None:
            raise self.error
        self.spans += spans

    def close(self) -> None:
        self.is_closed = True


def test_what_is_queued_goes_out_at_the_end() -> None:
    sink, dropped = Sink(), list[int]()
    exporter = Exporter(sink, dropped.append)
    for _ in range(3):
        exporter.give(spans)
    exporter.close()
    assert len(sink.spans) == 6
    assert sink.is_closed
    assert dropped == []


def test_more_than_fits_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MAX_QUEUED", 2)
    sink, dropped = Sink(), list[int]()
    exporter = Exporter(sink, dropped.append)
    for _ in range(5):
        exporter.give(spans)
    exporter.close()
    assert len(sink.spans) == 4
    assert sum(dropped) == 3


def test_a_sink_that_fails_costs_its_spans_only(caplog: pytest.LogCaptureFixture) -> None:
    sink, dropped = Sink(), list[int]()
    sink.error = OSError("no space")
    exporter = Exporter(sink, dropped.append)
    exporter.give(spans)
    exporter.close()
    assert dropped == [1]
    assert "traces are lost: no space" in caplog.text


def test_traces_are_off_unless_asked_for(tmp_path: Path) -> None:
    assert open_tracer(TelemetryConfig(), tmp_path, "1", lambda n: None) is None


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'llmos\[otel\]'"):
        open_tracer(TelemetryConfig(traces="otlp"), tmp_path, "1", lambda n: None)
