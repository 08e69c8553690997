"""Spans: who is traced, what is sent, what happens to it when nobody takes it."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.errors import ConfigError
from llmos.telemetry import export as exporting
from llmos.telemetry.config import TelemetryConfig
from llmos.telemetry.export import Exporter
from llmos.telemetry.otlp import TraceFile, request
from llmos.telemetry.otlp_http import Collector, CollectorRefused
from llmos.telemetry.scribe import Destination, Scribe, ScribeFailed, ScribeLost
from llmos.telemetry.setup import open_tracer
from llmos.telemetry.spans import Context, Kind, Moment, Span, child_of, parent_of
from llmos.telemetry.traced import AnswerRecord, decode, encode
from llmos.telemetry.tracer import Trace, Tracer, begin

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RESOURCE = {"service.name": "llmos", "process.pid": 7}


def spans() -> list[Span]:
    root = Context(TRACE, "1" * 16, PARENT)
    attributes = {"a": "x", "n": 1 << 40, "f": 0.5, "b": True, "l": ("p", "q")}
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
    assert parent_of(root.header) == (root.trace_id, root.span_id, True)
    assert parent_of(root._replace(is_sampled=False).header)[2] is False
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
    sent = ExportTraceServiceRequest.FromString(collector.bodies[0])
    ours = ExportTraceServiceRequest()
    told = json.loads(msgspec.json.encode(request(spans(), RESOURCE, "1.2")))
    ParseDict(_as_proto_json(told), ours)
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


def answer(number: int, name: str = "/v1/chat/completions") -> AnswerRecord:
    """One that can be told from others."""
    return AnswerRecord(Context(TRACE, f"{number:016x}"), "POST", name, 200, "req", number, number)


class Outlet:
    """Keeps the numbers of the answers it is given; `gate` closed, it takes its time."""

    def __init__(self) -> None:
        self.numbers, self.is_closed = list[int](), False
        self.error: OSError | None = None
        self.gate = threading.Event()
        self.gate.set()

    def export(self, records: Sequence[bytes]) -> None:
        self.gate.wait()
        if self.error is not None or self.is_closed:
            raise self.error or OSError("closed")
        for record in records:
            made = decode(record)
            assert isinstance(made, AnswerRecord)
            self.numbers.append(made.begun_ns)

    def close(self) -> None:
        self.is_closed = True
        self.gate.set()


def test_what_is_queued_goes_out_at_the_end_and_in_order() -> None:
    outlet, dropped = Outlet(), list[int]()
    exporter = Exporter(outlet, dropped.append)
    for number in range(1000):
        exporter.give(answer(number))
    exporter.close()
    assert outlet.numbers == list(range(1000))
    assert outlet.is_closed
    assert dropped == []


def test_more_than_fits_is_dropped_and_counted_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = len(encode(answer(1)))
    monkeypatch.setattr(exporting, "MAX_QUEUED_BYTES", 2 * size)
    monkeypatch.setattr(exporting, "INTERVAL_S", 60.0)
    outlet, dropped = Outlet(), list[int]()
    exporter = Exporter(outlet, dropped.append)
    for number in range(5):
        exporter.give(answer(number))
    assert sum(dropped) == 3
    exporter.close()
    assert outlet.numbers == [0, 1]
    exporter.give(answer(1))  # there is room again
    assert sum(dropped) == 3


def test_an_outlet_that_fails_costs_its_records_only(caplog: pytest.LogCaptureFixture) -> None:
    outlet, dropped = Outlet(), list[int]()
    outlet.error = OSError("no space")
    exporter = Exporter(outlet, dropped.append)
    exporter.give(answer(1))
    exporter.close()
    assert dropped == [1]
    assert "traces are lost: no space" in caplog.text


def test_what_there_is_no_time_for_at_the_end_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    outlet, dropped = Outlet(), list[int]()
    outlet.gate.clear()
    exporter = Exporter(outlet, dropped.append)
    for number in range(exporting.MAX_EXPORTED + 3):
        exporter.give(answer(number))
    exporter.close(timeout_s=0.01)
    assert sum(dropped) == exporting.MAX_EXPORTED + 3
    assert outlet.numbers == []
    assert "are lost" in caplog.text


def test_a_name_that_is_no_text_costs_its_record_only() -> None:
    outlet, dropped = Outlet(), list[int]()
    exporter = Exporter(outlet, dropped.append)
    exporter.give(answer(1, "/\ud800"))
    exporter.give(answer(2))
    exporter.close()
    assert (outlet.numbers, dropped) == ([2], [1])


@pytest.fixture
def scribe(tmp_path: Path) -> Iterator[Scribe]:
    made = Scribe(Destination({"service.name": "llmos"}, "1", path=str(tmp_path / "traces.jsonl")))
    yield made
    made.close()


def written(path: Path) -> list[int]:
    """Numbers of the answers in a file of spans, as they stand there."""
    return [
        int(span["startTimeUnixNano"])
        for line in path.read_text().splitlines()
        for span in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_another_process_writes_spans_and_ends_with_us(scribe: Scribe, tmp_path: Path) -> None:
    assert scribe.pid is None  # nothing is traced yet
    scribe.export([encode(answer(1)), encode(answer(2))])
    assert written(tmp_path / "traces.jsonl") == [1, 2]
    pid = scribe.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)  # a stop of everything: it is still needed
    scribe.export([encode(answer(3))])
    assert (scribe.pid, written(tmp_path / "traces.jsonl")) == (pid, [1, 2, 3])
    scribe.close()
    assert not is_alive(pid)
    with pytest.raises(ScribeLost, match="stopping"):
        scribe.export([encode(answer(4))])


def test_one_that_is_killed_is_told_of_and_replaced(scribe: Scribe, tmp_path: Path) -> None:
    scribe.export([encode(answer(1))])
    first = scribe.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    with pytest.raises(ScribeLost):
        scribe.export([encode(answer(2))])
    scribe.export([encode(answer(3))])
    assert scribe.pid not in {None, first}
    assert written(tmp_path / "traces.jsonl") == [1, 3]


def test_one_that_stands_still_is_given_up(
    scribe: Scribe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scribe.export([encode(answer(1))])
    pid = scribe.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr("llmos.telemetry.scribe.GRACE_S", 0.01)
    with pytest.raises(ScribeLost, match="no answer"):
        scribe.export([encode(answer(2))])
    assert not is_alive(pid)


def test_a_disk_that_refuses_is_told_of_and_the_process_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    scribe = Scribe(Destination({}, "1", path=str(folder / "traces.jsonl")))
    try:
        with pytest.raises(ScribeFailed, match="No such file"):
            scribe.export([encode(answer(1))])
        pid = scribe.pid
        folder.mkdir()
        scribe.export([encode(answer(2))])
        assert scribe.pid == pid
        assert written(folder / "traces.jsonl") == [2]
    finally:
        scribe.close()


def test_a_collector_is_sent_to_by_the_other_process(collector: Received) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    scribe = Scribe(Destination({}, "1", url=collector.url, timeout_s=5))
    try:
        scribe.export([encode(answer(7))])
        sent = ExportTraceServiceRequest.FromString(collector.bodies[0])
        (span,) = sent.resource_spans[0].scope_spans[0].spans
        assert (span.name, span.start_time_unix_nano) == ("POST /v1/chat/completions", 7)
        collector.status = 400
        with pytest.raises(ScribeFailed, match="did not take"):
            scribe.export([encode(answer(8))])
    finally:
        scribe.close()


def test_traces_are_off_unless_asked_for(tmp_path: Path) -> None:
    assert open_tracer(TelemetryConfig(), tmp_path, "1", lambda n: None) is None


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'llmos\[otel\]'"):
        open_tracer(TelemetryConfig(traces="otlp"), tmp_path, "1", lambda n: None)
