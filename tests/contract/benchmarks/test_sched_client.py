"""The scheduler's load client against a small server in a thread, and the barrier batch."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from benchmarks import models
from benchmarks.sched.barrier import Barrier, BarrierPlan, Kind
from benchmarks.sched.client import Group, Plan, Run
from benchmarks.sched.records import OK, Record
from llmos.abi.driver import ReplicaSpec
from llmos.drivers.echo import EchoDriver
from tests.contract.benchmarks.small_server import Handler, request, served

TOKEN = b'data: {"choices":[{"text":"a","finish_reason":null}]}\n\n'


class _Handler(Handler):
    def do_POST(self) -> None:
        body = self.body()
        if body == b"refuse":
            self.send_response(429)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"full")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(3):
            self._chunk(TOKEN[:20])  # a mark is cut in two
            self._chunk(TOKEN[20:])
        if body == b"break":
            self._chunk(b'data: {"error":{"code":"worker_lost"}}\n\n')
        else:
            self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(_Handler) as listens:
        yield listens


def _run(port: int, groups: list[Group], duration_s: float) -> list[Record]:
    plan = Plan("127.0.0.1", port, groups, duration_s, drain_s=5.0, connections=2)
    return asyncio.run(Run(plan).carry_out())


def test_open_load_is_sent_when_it_is_due_and_recorded(port: int) -> None:
    due_s = [0.0, 0.0, 0.0, 0.05]
    groups = [
        Group("fine", [request(b"fine")], due_s, prompt_tokens=7),
        Group("broken", [request(b"break")], [0.01]),
        Group("refused", [request(b"refuse")], [0.02]),
    ]
    found = _run(port, groups, 0.1)
    fine = [record for record in found if record.group == "fine"]
    assert [record.status for record in fine] == [OK] * 4
    assert [len(record.token_s) for record in fine] == [3] * 4
    assert all(record.end_s >= record.token_s[-1] >= record.due_s - 0.01 for record in fine)
    assert {record.prompt_tokens for record in fine} == {7}
    broken, refused = (next(r for r in found if r.group == g) for g in ("broken", "refused"))
    assert (broken.status, len(broken.token_s)) == (0, 3)
    assert "worker_lost" in broken.error
    assert (refused.status, refused.error, refused.token_s) == (429, "full", [])


def test_closed_clients_ask_again_until_the_time_is_over(port: int) -> None:
    found = _run(port, [Group("busy", [request(b"fine")], closed=3)], 0.2)
    assert len(found) > 6
    assert {record.status for record in found} == {OK}
    assert all(record.due_s < 0.2 for record in found)


class _Clock:
    """Time that moves by one at every look."""

    def __init__(self) -> None:
        self._ticks = itertools.count()
        self.skipped_s = 0.0

    def __call__(self) -> float:
        return next(self._ticks) * 0.001 + self.skipped_s

    def sleep(self, seconds: float) -> None:
        self.skipped_s += seconds


def _barrier(monkeypatch: pytest.MonkeyPatch, kinds: list[Kind], duration_s: float) -> list[Record]:
    monkeypatch.setattr(models, "tokens", lambda count, seed, vocab: [97] * count)
    driver, clock = EchoDriver(), _Clock()
    driver.load(ReplicaSpec("mdl", "/", "/", "", 1024, 2, 1), lambda fraction, what: None)
    plan = BarrierPlan("60m", kinds, duration_s, num_slots=2)
    return Barrier(plan, driver, clock, clock.sleep).run()


def test_nobody_joins_a_batch_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [Kind("long", 50, 50, [0.0]), Kind("short", 3, 3, [0.005, 0.006, 5.0])]
    found = _barrier(monkeypatch, kinds, 10.0)
    long = next(record for record in found if record.group == "long")
    first, second, third = [record for record in found if record.group == "short"]
    assert all(record.status == OK for record in found)
    assert [len(r.token_s) for r in (long, first)] == [50, 3]
    assert first.token_s[0] > long.end_s  # though a row was free all the time
    assert second.token_s[0] == first.token_s[0]
    assert third.token_s[0] > 5.0


def test_closed_kinds_come_again_and_what_waits_at_the_end_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = _barrier(monkeypatch, [Kind("busy", 5, 5, closed=3)], 0.2)
    done = [record for record in found if record.status == OK]
    assert len(done) > 5
    assert len(found) - len(done) <= 3
