"""A request's spans are the decisions about it, laid end to end."""

from __future__ import annotations

from llmos.abi.inference import UNBOUNDED
from llmos.abi.requests import RequestRow
from llmos.abi.syscall import Decided
from llmos.kernel.process import Phase
from llmos.telemetry.spans import Context, Span
from llmos.telemetry.traced import Drawing, RequestRecord
from llmos.telemetry.tracer import Trace

TRACE = "a" * 32
MS = 1_000_000


def made(trace: Trace, *history: tuple[int, str], first: int = 0, end: int = 100) -> list[Span]:
    """Times in ms."""
    decisions = [Decided(at * MS, state, f"why {at}") for at, state in history]
    row = RequestRow(
        "req_1", "t", "prn_1", "m:1", "chat", 1, 1, 1, 0, 0, end * MS, "stop", 1, 0, first * MS
    )
    drawing = Drawing(1.0, 1.0, 0.0, 0.0, 0, None, UNBOUNDED)
    told = ("chat", "m", "echo", "normal", 0, str(Phase(history[-1][1])), 0, 0, drawing)
    noted = (trace.prepared_ns, trace.num_steps, trace.steps)
    return RequestRecord(trace.context, row, 0, *noted, decisions, *told).spans()


def stages(spans: list[Span]) -> list[tuple[str, int, int]]:
    return [(s.name, s.start_ns // MS, s.end_ns // MS) for s in spans[1:] if s.name != "llmos.step"]


def test_stages_follow_one_another_without_gaps() -> None:
    trace = Trace(Context(TRACE, "1" * 16, "2" * 16), 8, prepared_ns=3 * MS)
    spans = made(
        trace,
        *((5, "waiting"), (10, "running"), (40, "paused"), (60, "running"), (100, "finished")),
        first=20,
    )
    assert stages(spans) == [
        ("llmos.prepare", 0, 3),
        ("llmos.admission", 3, 5),
        ("llmos.queue", 5, 10),
        ("llmos.prefill", 10, 20),
        ("llmos.decode", 20, 40),
        ("llmos.paused", 40, 60),
        ("llmos.decode", 60, 100),
    ]
    root = spans[0]
    assert (root.context.parent_id, root.start_ns, root.end_ns) == ("2" * 16, 0, 100 * MS)
    assert all(s.context.parent_id == root.context.span_id for s in spans[1:])
    assert {s.context.trace_id for s in spans} == {TRACE}
    assert len({s.context.span_id for s in spans}) == len(spans)
    told = [(m.name, m.attributes["llmos.reason"]) for m in root.moments]
    assert told[3] == ("llmos.running", "why 60")


def test_suspensions_are_stages() -> None:
    trace = Trace(Context(TRACE, "1" * 16), 8, prepared_ns=1 * MS)
    spans = made(
        trace,
        *((1, "waiting"), (2, "running"), (10, "suspending"), (12, "suspended")),
        *((50, "running"), (70, "finished")),
        first=4,
        end=70,
    )
    assert stages(spans)[3:] == [
        ("llmos.decode", 4, 10),
        ("llmos.suspending", 10, 12),
        ("llmos.suspended", 12, 50),
        ("llmos.decode", 50, 70),
    ]


def test_two_decisions_in_one_state_are_one_stage() -> None:
    trace = Trace(Context(TRACE, "1" * 16), 8, prepared_ns=1 * MS)
    spans = made(trace, (1, "waiting"), (5, "waiting"), (9, "running"), (20, "failed"), end=20)
    assert stages(spans)[1:] == [("llmos.queue", 1, 9), ("llmos.prefill", 9, 20)]


def test_one_that_was_never_accepted_ends_where_it_was() -> None:
    not_prepared = made(Trace(Context(TRACE, "1" * 16), 8), (7, "failed"), end=7)
    assert stages(not_prepared) == [("llmos.prepare", 0, 7)]
    refused = made(Trace(Context(TRACE, "1" * 16), 8, prepared_ns=4 * MS), (7, "failed"), end=7)
    assert stages(refused) == [("llmos.prepare", 0, 4), ("llmos.admission", 4, 7)]


def test_a_step_belongs_to_the_stage_it_ended_in() -> None:
    trace = Trace(Context(TRACE, "1" * 16), 8, prepared_ns=1 * MS)
    trace.step(20 * MS, 0.015, 1)  # the one that ends the prefill
    trace.step(30 * MS, 0.005, 2)
    spans = made(trace, (1, "waiting"), (2, "running"), (90, "finished"), first=20, end=90)
    by_id = {s.context.span_id: s.name for s in spans}
    steps = [s for s in spans if s.name == "llmos.step"]
    assert [by_id[s.context.parent_id] for s in steps] == ["llmos.prefill", "llmos.decode"]
    assert [(s.start_ns // MS, s.end_ns // MS) for s in steps] == [(5, 20), (25, 30)]
    assert steps[1].attributes == {"llmos.step.tokens": 2}
