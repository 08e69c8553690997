from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.sched import records
from benchmarks.sched.arrivals import TraceEntry, poisson, read_trace, window
from benchmarks.sched.records import OK, Record

shares = st.lists(st.floats(0.1, 1e4), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(shares)
def test_jain_is_between_one_for_all_and_equal_parts(served: list[float]) -> None:
    assert 1 / len(served) - 1e-9 <= records.jain(served) <= 1 + 1e-9
    assert records.jain([served[0]] * 5) == pytest.approx(1.0)


def test_jain_of_one_who_takes_all() -> None:
    assert records.jain([0.0, 0.0, 0.0, 7.0]) == pytest.approx(0.25)
    assert records.jain([0.0, 0.0]) == 1.0


def test_the_worst_share_error_is_relative_to_what_the_weight_says() -> None:
    assert records.worst_share_error([10.0, 20.0, 40.0], [1.0, 2.0, 4.0]) == pytest.approx(0.0)
    # 7 of 70 are wanted by weight 1 of 10; 14 were served
    assert records.worst_share_error([14.0, 56.0], [1.0, 9.0]) == pytest.approx(1.0)


def test_service_counts_only_what_falls_into_the_window() -> None:
    found = [
        Record("a", 0.0, token_s=[1.0, 2.0, 3.0], prompt_tokens=100),
        Record("a", 0.0, token_s=[4.0, 9.0], prompt_tokens=10),
        Record("b", 0.0, prompt_tokens=50),
        Record("elsewhere", 0.0, token_s=[5.0], prompt_tokens=1000),
    ]
    # the first prompt was read before the window; two of its tokens and one of the next are inside
    served = records.service(found, ["a", "b"], 2.0, 5.0)
    assert served == [10 + records.OUTPUT_COST * 3, 0.0]


def test_a_request_without_a_token_counts_with_the_time_it_waited() -> None:
    found = [
        Record("a", 1.0, status=OK, token_s=[1.5]),
        Record("a", 2.0),
        Record("a", 3.0, status=429),
        Record("a", 11.0),
    ]
    assert records.ttft_s(found, 10.0, 0.5) == 0.5
    assert records.ttft_s(found, 10.0, 1.0) == 8.0


def test_goodput_is_whole_answers_and_tokens_are_all_of_them() -> None:
    found = [
        Record("a", 0.0, status=OK, end_s=2.0, token_s=[1.0, 2.0]),
        Record("a", 0.0, status=OK, end_s=6.0, token_s=[3.0, 6.0]),
        Record("a", 0.0, status=0, end_s=2.0, token_s=[2.5]),
        Record("a", 0.0, status=429, end_s=2.0),
    ]
    assert records.goodput(found, 0.0, 4.0) == pytest.approx(0.25)
    assert records.tokens_per_s(found, 0.0, 4.0) == pytest.approx(1.0)


def test_poisson_repeats_itself_and_keeps_its_rate() -> None:
    due_s = poisson(50.0, 100.0, 3)
    assert due_s == poisson(50.0, 100.0, 3)
    assert due_s != poisson(50.0, 100.0, 4)
    assert due_s == sorted(due_s)
    assert 0 < due_s[0] < due_s[-1] < 100.0
    assert len(due_s) == pytest.approx(5000, rel=0.1)
    gaps = [after - before for before, after in itertools.pairwise(due_s)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert deviation == pytest.approx(mean, rel=0.1)  # as exponential gaps have it


def test_a_trace_is_read_and_a_window_played_slower(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:59.5000000,374,44\n"
        "2023-11-16 18:16:00.7500000,396,109\n"
        "2023-11-16 18:16:09.5000009,879,55\n"
    )
    trace = read_trace(path)
    assert trace[0] == TraceEntry(0.0, 374, 44)
    assert trace[1] == TraceEntry(1.25, 396, 109)
    assert [entry.due_s for entry in window(trace, 1.0, 5.0, 10.0)] == [0.5]
    assert len(window(trace, 0.0, 20.0, 1.0)) == 3


def test_the_whole_trace(test_data: Path) -> None:
    trace = read_trace(test_data / "traces" / "AzureLLMInferenceTrace_conv.csv")
    assert len(trace) == 19366
    assert all(entry.prompt_tokens > 0 and entry.output_tokens > 0 for entry in trace)
    assert [entry.due_s for entry in trace] == sorted(entry.due_s for entry in trace)
