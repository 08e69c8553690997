"""Batches on the real server: every line once, whatever dies on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from llmos.cluster import proc
from tests.system.server import POLL_S, Server

CHAT = "/v1/chat/completions"
ENDS = {"completed", "failed", "expired", "cancelled"}
PATIENCE_POLLS = 6000
SETTINGS = (
    *("--preload", "echo"),
    *("--set", "jobs.min_backoff_s=0.05"),
    *("--set", "jobs.poll_interval_s=0.2"),
)
NUM_LINES = 1000
NUM_SERVER_KILLS = 3


def line(i: int, **body: Any) -> str:
    """Paced, so that there is time to kill somebody."""
    asked = {"model": "echo", "messages": [{"role": "user", "content": f"第 {i} 行"}]}
    driver = {"first_delay_ms": 40}
    return json.dumps(
        {
            "custom_id": f"line-{i}",
            "method": "POST",
            "url": CHAT,
            "body": {**asked, "llmos": {"driver": driver}, **body},
        },
        ensure_ascii=False,
    )


@pytest.fixture
def own(own_server: Server) -> Server:
    own_server.options = SETTINGS
    return own_server.start()


class Run:
    """One batch on a server that may be started again."""

    def __init__(self, server: Server, lines: list[str]) -> None:
        self.server = server
        with server.openai() as client:
            file = client.files.create(
                file=("in.jsonl", "\n".join(lines).encode()), purpose="batch"
            )
            batch = client.batches.create(
                input_file_id=file.id, endpoint=CHAT, completion_window="24h"
            )
        self.id = batch.id

    def get(self) -> openai.types.Batch:
        with self.server.openai() as client:
            return client.batches.retrieve(self.id)

    def until(self, done: Callable[[openai.types.Batch], bool]) -> openai.types.Batch:
        """A batch is asked how it is, as any client must."""
        pause = threading.Event()
        for _ in range(PATIENCE_POLLS):
            batch = self.get()
            if done(batch):
                return batch
            assert batch.status not in ENDS, f"{batch}\n{self.server.log[-4000:]}"
            pause.wait(POLL_S)
        pytest.fail(f"not in time: {self.get()}")

    def until_completed(self, at_least: int) -> None:
        self.until(lambda batch: _counts(batch).completed >= at_least)

    def pid_of(self, role: str) -> int:
        """Of the one worker of that role; between two there is none."""
        self.until(lambda _: pids_of(self.server, role) != [])
        (pid,) = pids_of(self.server, role)
        return pid

    def end(self) -> openai.types.Batch:
        return self.until(lambda batch: batch.status in ENDS)

    def rows(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        with self.server.openai() as client:
            return [json.loads(row) for row in client.files.content(file_id).text.splitlines()]


def _counts(batch: openai.types.Batch) -> Any:
    assert batch.request_counts is not None
    return batch.request_counts


def check_each_once(run: Run, num_lines: int) -> None:
    batch = run.end()
    assert batch.status == "completed", batch
    counts = _counts(batch)
    assert (counts.total, counts.completed, counts.failed) == (num_lines, num_lines, 0)
    rows = run.rows(batch.output_file_id)
    assert [row["custom_id"] for row in rows] == [f"line-{i}" for i in range(num_lines)]
    contents = [row["response"]["body"]["choices"][0]["message"]["content"] for row in rows]
    assert contents == [f"第 {i} 行" for i in range(num_lines)]
    assert batch.error_file_id is None


def pids_of(server: Server, role: str) -> list[int]:
    with server.client() as client:
        workers = client.get("/os/v1/workers").json()["workers"]
    return [w["pid"] for w in workers if (w["role"], w["state"]) == (role, "serving")]


def test_workers_that_die_cost_no_line_and_double_none(own: Server) -> None:
    """Its program's worker twice, and the model's in between."""
    run = Run(own, [line(i) for i in range(NUM_LINES)])
    for at, role in enumerate(("program", "replica", "program"), 1):
        run.until_completed(at * NUM_LINES // 5)
        os.kill(run.pid_of(role), signal.SIGKILL)
    check_each_once(run, NUM_LINES)


def test_a_server_that_is_killed_again_and_again_costs_no_line(own: Server) -> None:
    run = Run(own, [line(i) for i in range(NUM_LINES)])
    for at in range(1, NUM_SERVER_KILLS + 1):
        run.until_completed(at * NUM_LINES // (NUM_SERVER_KILLS + 2))
        own.kill()
        own.start()
    check_each_once(run, NUM_LINES)


def test_a_file_with_a_broken_line_is_refused_by_its_number(own: Server) -> None:
    lines = [line(i) for i in range(8000)]
    lines[7340] = lines[7340][:-3]
    lines[7500] = line(3)
    batch = Run(own, lines).end()
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    found = [(error.code, error.line) for error in batch.errors.data]
    assert found == [("invalid_json_line", 7341), ("duplicate_custom_id", 7501)]
    assert batch.output_file_id is None


def test_a_bad_line_is_an_error_of_its_own(own: Server) -> None:
    lines = [line(0), line(1, model="gone"), line(2, temperature=99), line(3)]
    run = Run(own, lines)
    batch = run.end()
    assert batch.status == "completed"
    assert (_counts(batch).completed, _counts(batch).failed) == (2, 2)
    errors = {row["custom_id"]: row["response"] for row in run.rows(batch.error_file_id)}
    assert {key: made["status_code"] for key, made in errors.items()} == {
        "line-1": 404,
        "line-2": 400,
    }


def test_a_cancelled_batch_keeps_the_lines_that_were_answered(own: Server) -> None:
    run = Run(own, [line(i) for i in range(NUM_LINES)])
    run.until_completed(50)
    with own.openai() as client:
        client.batches.cancel(run.id)
    batch = run.end()
    assert batch.status == "cancelled"
    rows = run.rows(batch.output_file_id)
    assert 50 <= len(rows) == _counts(batch).completed < NUM_LINES
    assert len({row["custom_id"] for row in rows}) == len(rows)


# what a killed server leaves


@pytest.fixture
def killed(own: Server, tmp_path: Path) -> Iterator[int]:
    """The worker of a job, frozen by somebody when the server alone was killed; it had a child."""
    steps = [
        {"do": "fork"},
        {"do": "emit", "kind": "here"},
        {"do": "sleep", "seconds": 600, "polite": False},
    ]
    with own.client() as client:
        body = {"program": "drill", "inputs": {"steps": steps}, "max_attempts": 1}
        job_id = client.post("/os/v1/jobs", json=body).json()["job"]["job_id"]
        pause = threading.Event()
        while not client.get(f"/os/v1/jobs/{job_id}/events", params={"kind": "here"}).json()[
            "events"
        ]:
            pause.wait(POLL_S)
    (pid,) = pids_of(own, "program")
    os.killpg(pid, signal.SIGSTOP)
    own.kill()  # its group; workers have groups of their own
    assert proc.members_of(pid), "nothing is left: the test proves nothing"
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def test_a_frozen_worker_does_not_outlive_the_next_start(own: Server, killed: int) -> None:
    own.start()
    left = [stat for stat in proc.members_of(killed) if stat.state != "Z"]
    assert not left
