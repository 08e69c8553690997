"""The client of our server: whole requests sent when due, every read kept with its time.

Runs as a process of its own (`python -m benchmarks.engine.client PLAN RECORDS`, see `run`). While
the run lasts it does nothing but receive; the streams are taken apart when it is over.
"""

from __future__ import annotations

import gc
import re
import select
import socket
import sys
import time

import msgspec

from benchmarks.sched.child import run_child, serve_parent
from benchmarks.sched.records import OK, Record

LAST_CHUNK = b"0\r\n\r\n"
RECEIVE_BYTES = 1 << 16
START_S = 0.2
"""Between the decision to begin and the first request."""
SPARE_S = 60.0
STATUS = re.compile(rb"HTTP/1\.1 (\d+)")
IDS = re.compile(rb'"token_ids":\s*\[([^\]]*)\]')
FAILED = re.compile(rb'^data: \{"error"', re.MULTILINE)


class Plan(msgspec.Struct, frozen=True):
    """Requests with `return_token_ids`, each on a connection of its own."""

    host: str
    port: int
    requests: list[bytes]
    due_s: list[float]
    timeout_s: float


class Answer:
    """One connection and what came over it when."""

    def __init__(self, plan: Plan, index: int) -> None:
        self.socket = socket.create_connection((plan.host, plan.port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request, self.due_s = plan.requests[index], plan.due_s[index]
        self.sent_s = 0.0
        self.reads: list[tuple[float, bytes]] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def receive(self, now_s: float) -> bool:
        """Whether it is over. A refusal's body ends with its brace instead of the last chunk."""
        data = self.socket.recv(RECEIVE_BYTES)
        self.reads.append((now_s, data))
        is_refused = not self.reads[0][1].startswith(b"HTTP/1.1 200")
        return not data or data.endswith(LAST_CHUNK) or (is_refused and data.endswith(b"}"))


def carry_out(plan: Plan) -> list[Record]:
    """Send and receive, then take apart."""
    answers = [Answer(plan, index) for index in range(len(plan.requests))]
    gc.disable()
    waiting = sorted(answers, key=lambda answer: -answer.due_s)
    reading: set[Answer] = set()
    began = time.perf_counter() + START_S
    time.sleep(START_S)
    while waiting or reading:
        now_s = time.perf_counter() - began
        if now_s > plan.timeout_s:
            break
        while waiting and waiting[-1].due_s <= now_s:
            answer = waiting.pop()
            answer.sent_s = time.perf_counter() - began
            answer.socket.sendall(answer.request)
            reading.add(answer)
        pause_s = waiting[-1].due_s - now_s if waiting else plan.timeout_s - now_s
        ready, _, _ = select.select(list(reading), [], [], max(0.0, pause_s))
        now_s = time.perf_counter() - began
        for answer in ready:
            if answer.receive(now_s):
                reading.discard(answer)
    return [record(answer) for answer in answers]


def record(answer: Answer) -> Record:
    """What became of a request. A token came when the end of its ids was read."""
    text = b"".join(data for _, data in answer.reads)
    made = Record("", answer.due_s, answer.sent_s - answer.due_s, token_s=[])
    status = STATUS.match(text)
    made.status = int(status[1]) if status else 0
    if made.status != OK or FAILED.search(text) or not text.endswith(LAST_CHUNK):
        made.error = text[-300:].decode(errors="replace") or "no answer"
        made.status = made.status if made.status != OK else 0
        return made
    ends, length = [], 0
    for at_s, data in answer.reads:
        length += len(data)
        ends.append((length, at_s))
    at = 0
    for found in IDS.finditer(text):
        while ends[at][0] < found.end():
            at += 1
        made.token_s.extend([ends[at][1]] * len(found[1].split(b",")) if found[1].strip() else [])
    made.end_s = answer.reads[-1][0]
    return made


def run(plan: Plan) -> list[Record]:
    """In a process of its own. Raises RuntimeError unless every request was answered in full."""
    records = run_child("benchmarks.engine.client", plan, plan.timeout_s + SPARE_S)
    failed = [r for r in records if r.status != OK]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(records)} requests failed: {failed[0].error}")
    return records


def main() -> int:
    """Plan in, records out."""
    return serve_parent(Plan, carry_out)


if __name__ == "__main__":
    sys.exit(main())
