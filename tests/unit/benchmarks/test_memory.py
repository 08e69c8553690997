from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks import bench_memory
from benchmarks.memory import system, zipf
from benchmarks.memory.cases import Subject, draw_waves, first_difference
from benchmarks.memory.cost import switched
from benchmarks.memory.stream import Streamed

SUBJECT = Subject("small", 512, 50, 40)
MS = 1_000_000


def test_waves_have_as_many_cases_as_asked_for_and_all_are_others() -> None:
    cases = [case for wave in draw_waves(SUBJECT, 60, seed=1) for case in wave]
    assert len(cases) >= 60
    assert len({str(case.body["prompt"]) for case in cases}) == len(cases)
    assert {case.is_greedy for case in cases} == {True, False}


def test_a_case_leaves_in_order_and_before_its_end() -> None:
    for wave in draw_waves(SUBJECT, 200, seed=2):
        for case in wave:
            assert list(case.points) == sorted(set(case.points))
            assert case.points[0] >= 1
            assert case.points[-1] < SUBJECT.num_tokens
            assert (case.body["temperature"] == 0) == case.is_greedy == ("seed" not in case.body)


def test_cases_of_other_seeds_are_others() -> None:
    first, second = draw_waves(SUBJECT, 1, seed=1), draw_waves(SUBJECT, 1, seed=2)
    assert first == draw_waves(SUBJECT, 1, seed=1)
    assert first[0][0].body["prompt"] != second[0][0].body["prompt"]


@pytest.mark.parametrize(
    ("ours", "theirs", "at"),
    [([1, 2], [1, 2], None), ([1, 3], [1, 2], 1), ([1], [1, 2], 1), ([1, 2], [], 0)],
)
def test_the_first_difference(ours: list[int], theirs: list[int], at: int | None) -> None:
    assert first_difference(ours, theirs) == at


def decisions(*what: tuple[str, int]) -> Sequence[dict[str, Any]]:
    return [{"state": state, "at_ns": at_ms * MS, "reason": ""} for state, at_ms in what]


def test_a_switch_costs_leaving_and_coming_back_and_not_the_time_away() -> None:
    story = decisions(
        ("waiting", 0),
        ("running", 100),
        ("suspending", 200),
        ("suspending", 201),
        ("suspended", 220),
        ("suspended", 500),
        ("running", 1000),
        ("finished", 1200),
    )
    token_ns = [at * MS for at in (110, 120, 130, 140, 1035, 1045, 1055)]
    found = switched(story, token_ns)
    assert found.count == 1
    assert found.leaving_s == pytest.approx(0.020)
    assert found.returning_s == pytest.approx(0.025)  # 35 ms to a token, of which 10 are a step
    assert found.whole_s == pytest.approx(1.1)
    assert found.running_s == pytest.approx(1.1 - 0.78)
    assert found.share == pytest.approx(100 * 0.045 / 0.32)


def test_who_never_left_paid_nothing() -> None:
    found = switched(decisions(("running", 0), ("finished", 100)), [MS, 2 * MS, 3 * MS])
    assert (found.count, found.share) == (0, 0)


def test_metrics_are_summed_over_the_labels_that_are_not_asked_for() -> None:
    text = (
        "# HELP llmos:x_total Things.\n"
        'llmos:x_total{what="a",how="b"} 2.0\n'
        'llmos:x_total{what="a",how="c"} 3.0\n'
        "llmos:y 1e+03\n"
    )
    samples = system.parse_metrics(text)
    assert system.total(samples, "llmos:x_total", what="a") == 5
    assert system.total(samples, "llmos:x_total", how="c") == 3
    assert system.total(samples, "llmos:y") == 1000
    assert system.gained({}, samples, "llmos:x_total") == 5


def test_zipf_asks_for_the_first_model_most_and_for_all_together_as_often_as_wanted() -> None:
    due_s = zipf.zipf_arrivals(rate=20.0, duration_s=200.0, seed=1)
    counts = [len(times) for times in due_s]
    assert sum(counts) == pytest.approx(4000, rel=0.1)
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.2)
    assert counts == sorted(counts, reverse=True)
    assert due_s == zipf.zipf_arrivals(rate=20.0, duration_s=200.0, seed=1)


def test_a_stream_is_read_line_by_line_and_knows_where_it_was() -> None:
    async def read() -> Streamed:
        stream = Streamed({})
        for line in (
            "id: req_1:1",
            'data: {"choices":[{"token_ids":[5,6]}]}',
            ": keep-alive",
            "id: req_1:2",
        ):
            stream.take(line)
        return stream

    stream = asyncio.run(read())
    assert (stream.token_ids, stream.last_id, stream.num_comments) == ([5, 6], "req_1:1", 1)
    assert not stream.is_over


def test_a_server_that_stops_is_not_the_end_of_a_stream() -> None:
    stream = Streamed({})
    stream.take('data: {"error":{"code":"shutting_down","message":"come back"}}')
    assert not stream.is_over
    stream.take('data: {"error":{"code":"worker_lost","message":"gone"}}')
    assert stream.error == "worker_lost: gone"


def test_a_part_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(bench_memory.CALLS, "nothing", lambda rows, result, options: None)
    bench_memory.run_part("nothing", None, None)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "nothing: not there yet\n"
