"""Our client takes streams apart after the run: tokens, refusals, streams that break."""

from __future__ import annotations

import pytest

from benchmarks.engine.client import Answer, record
from benchmarks.sched.records import OK

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
FIRST = b'40\r\ndata: {"choices":[{"text":"a","token_ids":[5]}]}\n\n\r\n'
SEVERAL = b'44\r\ndata: {"choices":[{"text":"bc","token_ids":[6, 7,8]}]}\n\n\r\n'
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _answer(*reads: tuple[float, bytes]) -> Answer:
    made = Answer.__new__(Answer)
    made.due_s, made.sent_s, made.reads = 0.5, 0.75, list(reads)
    return made


def test_each_token_has_the_time_of_the_read_that_completed_it() -> None:
    made = record(
        _answer(
            (1.0, HEAD + FIRST[:47]),  # cut in the ids
            (2.0, FIRST[47:]),
            (3.0, SEVERAL),
            (4.0, FIRST + END),
        )
    )
    assert made.status == OK
    assert made.token_s == [2.0, 3.0, 3.0, 3.0, 4.0]
    assert (made.end_s, made.late_s, made.ttft_s) == (4.0, 0.25, 1.5)


@pytest.mark.parametrize("cut", range(1, len(FIRST)))
def test_wherever_it_is_cut(cut: int) -> None:
    made = record(_answer((1.0, HEAD + FIRST[:cut]), (2.0, FIRST[cut:] + END)))
    is_whole = b"]" in FIRST[:cut].partition(b"[5")[2]
    assert made.token_s == [1.0 if is_whole else 2.0]


def test_an_event_without_tokens_counts_none() -> None:
    empty = FIRST.replace(b"[5]", b"[]")
    assert record(_answer((1.0, HEAD + empty + END))).token_s == []


def test_a_refusal() -> None:
    made = record(_answer((1.0, b'HTTP/1.1 429 Too Many\r\n\r\n{"error":{"code":"full"}}')))
    assert made.status == 429
    assert "full" in made.error


@pytest.mark.parametrize(
    "last", [b'20\r\ndata: {"error":{"code":"worker_lost"}}\n\n\r\n0\r\n\r\n', b""]
)
def test_a_stream_that_breaks_is_not_an_answer(last: bytes) -> None:
    made = record(_answer((1.0, HEAD + FIRST + last)))
    assert made.status != OK
    assert made.error
