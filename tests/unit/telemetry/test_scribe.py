"""The process that exports traces: what it does with them, and how it may fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from llmos.abi.inference import UNBOUNDED
from llmos.abi.requests import RequestRow
from llmos.telemetry.scribe import (
    MAX_SPANS,
    Answer,
    Destination,
    Said,
    Scribe,
    ScribeFailed,
    ScribeLost,
    answers,
    bodies,
)
from llmos.telemetry.spans import Context, Span
from llmos.telemetry.traced import Drawing, RequestRecord, Step, encode
from tests.unit.telemetry.collector import Received
from tests.unit.telemetry.test_traces import TRACE, answer


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
    """One that nobody has waited for yet is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


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


@pytest.mark.parametrize("num_records", [1, 10_000])  # more than its socket takes: megabytes
def test_one_that_stands_still_is_given_up(
    scribe: Scribe, num_records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scribe.export([encode(answer(1))])
    pid = scribe.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr("llmos.telemetry.scribe.GRACE_S", 0.01)
    with pytest.raises(ScribeLost, match="timed out"):
        scribe.export([encode(answer(2))] * num_records)
    assert not is_alive(pid)


ORPHAN = """
import os, signal, sys
from llmos.telemetry.scribe import Destination, Scribe
scribe = Scribe(Destination({}, "1", path=sys.argv[1]))
scribe.export([bytes.fromhex(sys.argv[2])])
os.kill(scribe.pid, signal.SIGSTOP)
print(scribe.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_one_that_stands_still_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tmp_path / "traces.jsonl")]
    done = subprocess.run(
        [*command, encode(answer(1)).hex()], stdout=subprocess.PIPE, text=True, check=False
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while is_alive(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            pytest.fail("it outlives its server")


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


@pytest.fixture
def sending(collector: Received) -> Iterator[Scribe]:
    scribe = Scribe(Destination({}, "1", url=collector.url, timeout_s=5))
    yield scribe
    scribe.close()


def test_a_collector_is_sent_to_by_the_other_process(collector: Received, sending: Scribe) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    sending.export([encode(answer(7))])
    sent = ExportTraceServiceRequest.FromString(collector.bodies[0])
    (span,) = sent.resource_spans[0].scope_spans[0].spans
    assert (span.name, span.start_time_unix_nano) == ("POST /v1/chat/completions", 7)


def test_what_a_collector_took_is_known_when_it_refuses_or_the_process_is_lost(
    collector: Received, sending: Scribe, capfd: pytest.CaptureFixture[str]
) -> None:
    """A body is answered for when it is out: so each has the whole time limit."""
    records = [encode(answer(number)) for number in range(3 * MAX_SPANS)]

    def at_the_second(act: Callable[[], None]) -> None:
        def on_body() -> None:
            if len(collector.bodies) == 2:
                act()

        collector.bodies.clear()
        collector.on_body = on_body

    at_the_second(lambda: setattr(collector, "status", 400))
    with pytest.raises(ScribeFailed, match=r"did not take.*400.*Bad Request") as refused:
        sending.export(records)
    assert (len(collector.bodies), refused.value.num_exported) == (2, MAX_SPANS)
    collector.status = 200
    at_the_second(lambda: os.kill(sending.pid or 0, signal.SIGKILL))
    with pytest.raises(ScribeLost) as lost:
        sending.export(records)
    assert lost.value.num_exported == MAX_SPANS
    assert capfd.readouterr() == ("", "")  # OpenTelemetry's own words are in the failure


def test_what_the_process_dies_of_is_told(
    sending: Scribe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('a broken one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ScribeLost, match="ImportError: a broken one"):
        sending.export([encode(answer(1))])
    assert capfd.readouterr() == ("", "")


def test_a_module_of_the_working_folder_is_not_run(
    scribe: Scribe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    scribe.export([encode(answer(1))])
    assert written(tmp_path / "traces.jsonl") == [1]
    assert Path(f"/proc/{scribe.pid}/cwd").readlink() == Path("/")


def resident_bytes(pid: int | None) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_collector_that_is_not_there_costs_no_memory() -> None:
    scribe = Scribe(Destination({}, "1", url="http://127.0.0.1:9/v1/traces", timeout_s=0.01))
    records = [encode(answer(number)) for number in range(MAX_SPANS)]

    def fail(times: int) -> None:
        for _ in range(times):
            with pytest.raises(ScribeFailed, match=r"did not take.*timeout"):
                scribe.export(records)

    try:
        fail(10)
        before = resident_bytes(scribe.pid)
        fail(20)
        grown = resident_bytes(scribe.pid) - before
    finally:
        scribe.close()
    assert grown < 8_000_000


class Refusing:
    """A sink that raises `error`."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def export(self, spans: Sequence[Span]) -> None:
        raise self.error


@pytest.mark.parametrize("error", [OSError(), RuntimeError("boom"), OSError("\ud800")])
def test_any_error_is_answered_by_its_name(error: Exception) -> None:
    (told,) = answers(Refusing(error), [encode(answer(1))], Said())
    assert told.failure.startswith(f"{type(error).__name__}: ")
    assert told.failure.encode()


def test_a_record_that_is_none_is_answered_for() -> None:
    assert [a.num_exported for a in answers(Refusing(OSError()), [b"?"], Said())] == [0]


class Taking:
    """A sink that counts what is in each body."""

    def __init__(self) -> None:
        self.sizes = list[int]()

    def export(self, spans: Sequence[Span]) -> None:
        self.sizes.append(len(spans))


def request(num_steps: int) -> bytes:
    """A record of `num_steps` + 2 spans."""
    row = RequestRow("req", "t", "prn", "m:1", "chat", 1, 1, 1, 0, 0, 9, "stop", 1, 0, 1)
    drawing = Drawing(1.0, 1.0, 0.0, 0.0, 0, None, UNBOUNDED)
    steps = [Step(at, 1e-9, 1) for at in range(num_steps)]
    told = ("chat", "m", "echo", "normal", 0, "finished", 0, 0, drawing)
    return encode(RequestRecord(Context(TRACE, "1" * 16), row, 0, 9, num_steps, steps, [], *told))


def test_a_body_is_bounded_and_says_which_records_are_out_with_it() -> None:
    small, large = encode(answer(1)), request(num_steps=2 * MAX_SPANS)
    sink = Taking()
    found = list(answers(sink, [small, large, small], Said()))
    assert sink.sizes == [MAX_SPANS, MAX_SPANS, 4]
    assert found == [Answer(1), Answer(1), Answer(3)]
    whole = [small] * MAX_SPANS
    assert [num for _, num in bodies(whole)] == [MAX_SPANS]
    assert [num for _, num in bodies([*whole, small])] == [MAX_SPANS, MAX_SPANS + 1]
    assert list(bodies([])) == []
