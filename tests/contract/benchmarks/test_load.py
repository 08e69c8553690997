"""The load client against a small server in a thread."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from benchmarks import load
from benchmarks.load import Plan

SLOW_S = 0.03


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
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

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _plan(mode: str, port: int, body: bytes, **options: float) -> Plan:
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return Plan(mode, "127.0.0.1", port, head.encode() + body, **options)  # type: ignore[arg-type]


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
