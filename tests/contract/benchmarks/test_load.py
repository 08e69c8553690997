"""The load client against a small server in a thread."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from benchmarks import load
from benchmarks.load import Plan
from tests.contract.benchmarks.small_server import Handler, request, served

SLOW_S = 0.03


class _Handler(Handler):
    def do_POST(self) -> None:
        body = self.body()
        if body == b"stream":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            for _ in range(3):
                self.wfile.write(b'data: {"content":"a"}\n\n')
            self.wfile.write(b'data: {"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n')
            self.close_connection = True
            return
        if body == b"slow":
            time.sleep(SLOW_S)
        self.send_response(500 if body == b"fail" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(_Handler) as listens:
        yield listens


def _plan(mode: str, port: int, body: bytes, **options: float) -> Plan:
    return Plan(mode, "127.0.0.1", port, request(body), **options)  # type: ignore[arg-type]


def test_closed_counts_every_answer(port: int) -> None:
    outcome = load.carry_out(_plan("closed", port, b"fast", connections=2, duration_s=0.1))
    assert outcome.errors == 0
    assert len(outcome.latencies_s) >= 2
    assert all(0 < s < 5 for s in outcome.latencies_s)


def test_refusals_are_errors_not_latencies(port: int) -> None:
    outcome = load.carry_out(_plan("closed", port, b"fail", duration_s=0.02))
    assert outcome.errors >= 1
    assert outcome.latencies_s == []


def test_paced_counts_from_when_a_request_was_due(port: int) -> None:
    """One connection, 30 ms a request, 100 requests/s: the queue outside must show."""
    outcome = load.carry_out(_plan("paced", port, b"slow", duration_s=0.3, rate=100.0, seed=3))
    assert len(outcome.latencies_s) > 10
    assert max(outcome.latencies_s) > 5 * SLOW_S


def test_paced_is_the_same_load_for_the_same_seed(port: int) -> None:
    plan = _plan("paced", port, b"fast", connections=4, duration_s=0.1, rate=200.0, seed=5)
    assert len(load.carry_out(plan).latencies_s) == len(load.carry_out(plan).latencies_s)


def test_stream_reads_tokens_off_the_usage(port: int) -> None:
    outcome = load.carry_out(_plan("stream", port, b"stream", connections=3))
    assert (outcome.tokens, outcome.errors) == (9, 0)
    assert outcome.chunks == 12
