"""Spans: who is traced, what is sent, what happens to it when nobody takes it."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.errors import ConfigError
from llmos.telemetry import export as exporting
from llmos.telemetry.config import TelemetryConfig
from llmos.telemetry.export import Exporter, NotExported
from llmos.telemetry.otlp import TraceFile, request
from llmos.telemetry.otlp_http import Collector, CollectorRefused
from llmos.telemetry.setup import open_tracer
from llmos.telemetry.spans import Context, Kind, Moment, Span, child_of, parent_of
from llmos.telemetry.traced import AnswerRecord, decode, encode
from llmos.telemetry.tracer import Trace, Tracer, begin
from tests.unit.telemetry.collector import Received

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
        self.numbers, self.sizes, self.is_closed = list[int](), list[int](), False
        self.error: OSError | None = None
        self.gate = threading.Event()
        self.gate.set()

    def export(self, records: Sequence[bytes]) -> None:
        self.gate.wait()
        if self.error is not None or self.is_closed:
            raise self.error or OSError("closed")
        self.sizes.append(len(records))
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


def test_what_was_exported_before_a_failure_is_not_counted_as_lost() -> None:
    outlet, dropped = Outlet(), list[int]()
    outlet.error = NotExported("the third is refused", num_exported=2)
    exporter = Exporter(outlet, dropped.append)
    for number in range(5):
        exporter.give(answer(number))
    exporter.close()
    assert sum(dropped) == 3


def test_records_go_out_together_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MAX_EXPORTED_BYTES", 2 * len(encode(answer(1))))
    outlet = Outlet()
    exporter = Exporter(outlet, lambda n: None)
    for number in range(5):
        exporter.give(answer(number))
    exporter.close()
    assert outlet.numbers == [0, 1, 2, 3, 4]
    assert max(outlet.sizes) == 2


def test_what_there_is_no_time_for_at_the_end_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet, dropped = Outlet(), list[int]()
    outlet.gate.clear()
    exporter = Exporter(outlet, dropped.append)
    monkeypatch.setattr(exporting, "MAX_EXPORTED_BYTES", 1)
    for number in range(7):
        exporter.give(answer(number))
    exporter.close(timeout_s=0.01)
    assert sum(dropped) == 7
    assert outlet.numbers == []
    assert "are lost" in caplog.text


def test_a_name_that_is_no_text_costs_its_record_only() -> None:
    outlet, dropped = Outlet(), list[int]()
    exporter = Exporter(outlet, dropped.append)
    exporter.give(answer(1, "/\ud800"))
    exporter.give(answer(2))
    exporter.close()
    assert (outlet.numbers, dropped) == ([2], [1])


def test_traces_are_off_unless_asked_for(tmp_path: Path) -> None:
    assert open_tracer(TelemetryConfig(), tmp_path, "1", lambda n: None) is None


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'llmos\[otel\]'"):
        open_tracer(TelemetryConfig(traces="otlp"), tmp_path, "1", lambda n: None)
