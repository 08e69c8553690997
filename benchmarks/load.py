"""A load client that is not the bottleneck: bytes made beforehand, one thread, no HTTP library.

Runs as a process of its own: `python -m benchmarks.load` reads one JSON `Plan` on stdin and writes
one JSON `Outcome` on stdout. Latencies of a paced run count from the moment a request was due, not
from when a connection was free (no coordinated omission).
"""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator

import msgspec

END_OF_HEAD = b"\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
COMPLETION_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')
RECEIVE_BYTES = 1 << 16


class Plan(msgspec.Struct, frozen=True):
    """What to send where. `mode`: closed (one after another per connection), paced, stream, each.

    `rate` is requests per second of a Poisson process drawn from `seed`; `request` is a whole
    HTTP request. `each` sends every one of `requests` once.
    """

    mode: str
    host: str
    port: int
    request: bytes
    connections: int = 1
    duration_s: float = 1.0
    rate: float = 0.0
    seed: int = 1
    requests: list[bytes] = []


class Outcome(msgspec.Struct):
    """Latencies in seconds of answers with status 200; `late_s`: how late the client was itself."""

    latencies_s: list[float]
    wall_s: float
    errors: int = 0
    tokens: int = 0
    chunks: int = 0
    late_s: float = 0.0


class Connection:
    """One keep-alive connection and the answer it is reading."""

    def __init__(self, plan: Plan) -> None:
        self.socket = socket.create_connection((plan.host, plan.port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due_s = 0.0
        self.free_since_s = 0.0
        self._buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, request: bytes, due_s: float) -> None:
        self.due_s = due_s
        self.socket.sendall(request)

    def receive(self) -> bool | None:
        """None: the answer is not whole yet; True: it was a 200. Raises ConnectionError."""
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._buffer += data
        head, found, body = self._buffer.partition(END_OF_HEAD)
        if not found:
            return None
        length = LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return None
        self._buffer = b""
        return head.startswith(b"HTTP/1.1 200")


@contextlib.contextmanager
def connected(plan: Plan) -> Iterator[list[Connection]]:
    """The plan's connections, open."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Connection(plan)) for _ in range(plan.connections)]


def closed(plan: Plan, connections: list[Connection]) -> Outcome:
    """Each connection sends its next request when the last is answered."""
    outcome = Outcome([], 0.0)
    began = time.perf_counter()
    for connection in connections:
        connection.send(plan.request, time.perf_counter())
    busy = set(connections)
    while busy:
        ready, _, _ = select.select(list(busy), [], [], 10.0)
        if not ready:
            raise TimeoutError("no answer in 10 s")
        for connection in ready:
            ok = connection.receive()
            if ok is None:
                continue
            now = time.perf_counter()
            _count(outcome, ok, now - connection.due_s)
            if now - began < plan.duration_s:
                connection.send(plan.request, now)
            else:
                busy.discard(connection)
    outcome.wall_s = time.perf_counter() - began
    return outcome


def each(plan: Plan, connections: list[Connection]) -> Outcome:
    """Every request once, on whichever connection is free."""
    left = deque(plan.requests)
    outcome = Outcome([], 0.0)
    began = time.perf_counter()
    busy = set[Connection]()
    for connection in connections[: len(left)]:
        connection.send(left.popleft(), time.perf_counter())
        busy.add(connection)
    while busy:
        ready, _, _ = select.select(list(busy), [], [], 30.0)
        if not ready:
            raise TimeoutError("no answer in 30 s")
        for connection in ready:
            ok = connection.receive()
            if ok is None:
                continue
            _count(outcome, ok, time.perf_counter() - connection.due_s)
            if left:
                connection.send(left.popleft(), time.perf_counter())
            else:
                busy.discard(connection)
    outcome.wall_s = time.perf_counter() - began
    return outcome


def paced(plan: Plan, connections: list[Connection]) -> Outcome:
    """Requests fall due at random moments, whatever the server does."""
    draw, at, due = random.Random(plan.seed), 0.0, deque[float]()
    while (at := at + draw.expovariate(plan.rate)) < plan.duration_s:
        due.append(at)
    free, busy = list(connections), set[Connection]()
    outcome = Outcome([], 0.0)
    began = time.perf_counter()
    while due or busy:
        now = time.perf_counter() - began
        while due and free and due[0] <= now:
            connection = free.pop()
            moment = due.popleft()
            outcome.late_s = max(outcome.late_s, now - max(moment, connection.free_since_s))
            connection.send(plan.request, moment)
            busy.add(connection)
        pause_s = max(0.0, due[0] - now) if due and free else 10.0
        ready, _, _ = select.select(list(busy), [], [], pause_s)
        if not ready and pause_s == 10.0:
            raise TimeoutError("no answer in 10 s")
        for connection in ready:
            ok = connection.receive()
            if ok is not None:
                connection.free_since_s = time.perf_counter() - began
                _count(outcome, ok, connection.free_since_s - connection.due_s)
                busy.discard(connection)
                free.append(connection)
    outcome.wall_s = time.perf_counter() - began
    return outcome


def stream(plan: Plan, connections: list[Connection]) -> Outcome:
    """Every connection streams one answer; its tokens are read off the final usage."""
    tails = dict.fromkeys(connections, b"")
    outcome = Outcome([], 0.0)
    began = time.perf_counter()
    for connection in connections:
        connection.send(plan.request, began)
    while tails:
        ready, _, _ = select.select(list(tails), [], [], 10.0)
        if not ready:
            raise TimeoutError("no token in 10 s")
        for connection in ready:
            data = connection.socket.recv(RECEIVE_BYTES)
            outcome.chunks += data.count(b"data: {")
            tails[connection] = tail = (tails[connection] + data)[-2048:]
            if not data or b"[DONE]" in tail:
                del tails[connection]
                usage = COMPLETION_TOKENS.findall(tail)
                outcome.tokens += int(usage[-1]) if usage else 0
                _count(outcome, bool(usage), time.perf_counter() - began)
    outcome.wall_s = time.perf_counter() - began
    return outcome


def _count(outcome: Outcome, ok: bool, latency_s: float) -> None:
    if ok:
        outcome.latencies_s.append(latency_s)
    else:
        outcome.errors += 1


MODES = {"closed": closed, "paced": paced, "stream": stream, "each": each}


def carry_out(plan: Plan) -> Outcome:
    """Open the connections, run the plan's mode, close them."""
    with connected(plan) as connections:
        return MODES[plan.mode](plan, connections)


def main() -> int:
    """Plan in, outcome out."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(carry_out(plan)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
