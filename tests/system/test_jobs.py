"""Jobs on the real server with real workers: how they end, come back and stand still."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.server import Server

WAIT_S = 60.0
QUICK = (
    *("--set", "jobs.min_backoff_s=0.05"),
    *("--set", "jobs.grace_s=1.0"),
    *("--set", "jobs.poll_interval_s=0.5"),
    *("--set", "kernel.stopped_timeout_s=1.0"),
)


class Jobs:
    """A client of one server's jobs."""

    def __init__(self, client: httpx.Client) -> None:
        self.http = client

    def submit(self, *steps: dict[str, Any], **spec: Any) -> str:
        spec.setdefault("program", "drill")
        body = {"inputs": {"steps": list(steps)}, **spec}
        answer = self.http.post("/os/v1/jobs", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job"]["job_id"])

    def get(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/os/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["job"])

    def end(self, job_id: str) -> dict[str, Any]:
        """Its record once it has ended."""
        answer = self.http.get(f"/os/v1/processes/{job_id}/wait", params={"timeout_s": WAIT_S})
        assert answer.status_code == 200, answer.text
        assert answer.json()["info"]["ended_ns"] is not None, answer.text
        return self.get(job_id)

    def story(self, job_id: str) -> list[tuple[str, str]]:
        answer = self.http.get(f"/os/v1/processes/{job_id}")
        assert answer.status_code == 200, answer.text
        return [(d["state"], d["reason"]) for d in answer.json()["decisions"]]

    def events(self, job_id: str, **query: Any) -> list[dict[str, Any]]:
        answer = self.http.get(f"/os/v1/jobs/{job_id}/events", params=query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["events"])

    def follow(self, job_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Events as they come, until the job has ended."""
        query: dict[str, Any] = {"follow": "true", "after": after}
        with self.http.stream("GET", f"/os/v1/jobs/{job_id}/events", params=query) as answer:
            kind = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    if kind in ("done", "error"):
                        return
                    yield json.loads(line.removeprefix("data: "))

    def until(self, job_id: str, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event for which it holds. Fails when the job ends before."""
        for event in self.follow(job_id):
            if is_it(event):
                return event
        pytest.fail(f"{self.get(job_id)} ended first: {self.events(job_id)}")

    def running(self, job_id: str) -> None:
        """Returns when its program has said that it is at work (a step `emit`)."""
        self.until(job_id, lambda event: event["kind"] == "here")

    def post(self, path: str) -> httpx.Response:
        return self.http.post(path)


HERE = {"do": "emit", "kind": "here", "value": {}}


def in_state(state: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["kind"] == "state" and event["value"]["state"] == state


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    own = Server(tmp_path_factory.mktemp("jobs") / "home", "--preload", "echo", *QUICK).start()
    try:
        yield own
        assert own.stop() == 0, own.log
    finally:
        own.kill()


@pytest.fixture
def jobs(server: Server) -> Iterator[Jobs]:
    with server.client() as client:
        yield Jobs(client)


@pytest.fixture
def own(own_server: Server) -> Server:
    own_server.options = ("--preload", "echo", *QUICK)
    return own_server.start()


def worker_pid(server: Server, role: str = "program") -> int:
    """Of the one that serves."""
    with server.client() as client:
        workers = client.get("/os/v1/workers").json()["workers"]
    (pid,) = [w["pid"] for w in workers if w["role"] == role and w["state"] == "serving"]
    return int(pid)


# how they end


def test_a_job_is_done_and_leaves_its_outputs_results_log_and_story(jobs: Jobs) -> None:
    job_id = jobs.submit(
        {"do": "print", "text": "你好 🙂"},
        {"do": "call", "num_calls": 3, "window": 2},
        {"do": "result", "num_results": 4},
        {"do": "return", "outputs": {"x": 1}},
        name="first",
    )
    job = jobs.end(job_id)
    assert job["state"] == "succeeded"
    assert job["outputs"]["x"] == 1
    assert job["outputs"]["calls"] == {str(i): f"drill {i}" for i in range(3)}
    content = jobs.http.get(f"/v1/files/{job['outputs']['files']['output']}/content")
    assert [json.loads(line)["key"] for line in content.text.splitlines()] == [
        f"r{i}" for i in range(4)
    ]
    assert any("你好 🙂" in str(e["value"]) for e in jobs.events(job_id, kind="log"))
    states = [state for state, _ in jobs.story(job_id)]
    assert states[0] == "pending"
    assert states[-2:] == ["running", "succeeded"]
    children = [
        p for p in jobs.http.get("/os/v1/processes").json()["processes"]
        if p["parent_id"] == job_id
    ]  # fmt: skip
    assert [p["kind"] for p in children] == ["request"] * 3


def test_followers_see_every_event_once_wherever_they_begin(jobs: Jobs) -> None:
    job_id = jobs.submit(
        HERE, {"do": "emit", "count": 50}, {"do": "sleep", "seconds": 0.3}, {"do": "emit"}
    )
    jobs.running(job_id)
    live = list(jobs.follow(job_id))
    numbers = [event["number"] for event in live]
    assert numbers == list(range(1, len(numbers) + 1))
    assert live[-1]["value"]["state"] == "succeeded"
    assert list(jobs.follow(job_id, after=10)) == live[10:]


def test_a_program_that_raises_fails_with_its_traceback(jobs: Jobs) -> None:
    job_id = jobs.submit({"do": "raise", "code": "ValueError", "message": "坏了"})
    job = jobs.end(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "program_failed")
    assert "坏了" in job["error"]["message"]
    assert any("Traceback" in str(e["value"]) for e in jobs.events(job_id, kind="log"))
    assert job["attempt"] == 1


def test_a_failure_that_may_pass_is_tried_again_as_often_as_it_may(jobs: Jobs) -> None:
    fails = {"do": "raise", "code": "engine_failed", "retryable": True}
    passes = jobs.submit({**fails, "until_attempt": 2}, {"do": "return", "outputs": {"ok": True}})
    fails_on = jobs.submit(fails, max_attempts=2)
    job = jobs.end(passes)
    assert (job["state"], job["attempt"], job["outputs"]["ok"]) == ("succeeded", 3, True)
    job = jobs.end(fails_on)
    assert (job["state"], job["attempt"], job["error"]["code"]) == ("failed", 2, "engine_failed")
    assert [s for s, _ in jobs.story(fails_on)].count("running") == 2
    retried = jobs.post(f"/os/v1/jobs/{fails_on}/retry")
    assert retried.status_code == 200
    assert jobs.end(fails_on)["state"] == "failed"


def test_a_program_that_hangs_is_ended_when_its_time_is_up(jobs: Jobs) -> None:
    job = jobs.end(jobs.submit({"do": "hang"}, timeout_s=0.3))
    assert (job["state"], job["error"]["code"]) == ("failed", "program_failed")
    assert "longer than 0.3 s" in job["reason"]


def test_a_job_that_is_late_expires_running_or_not(jobs: Jobs) -> None:
    soon_ns = time.time_ns() + 800_000_000
    running = jobs.submit({"do": "sleep", "seconds": 60}, expires_ns=soon_ns)
    job = jobs.end(running)
    assert (job["state"], job["error"]["code"]) == ("failed", "deadline_exceeded")


def test_a_program_that_floods_its_log_is_bounded_and_harms_nobody(jobs: Jobs) -> None:
    flood = jobs.submit({"do": "print", "text": "x" * 80, "count": 300_000})
    assert jobs.end(jobs.submit({"do": "return"}))["state"] == "succeeded"
    assert jobs.end(flood)["state"] == "succeeded"
    after, num_kept = _first(jobs, flood), 0
    while page := jobs.events(flood, limit=1000, after=after):
        after, num_kept = page[-1]["number"], num_kept + len(page)
    assert 0 < num_kept < 100_000


def _first(jobs: Jobs, job_id: str) -> int:
    """The number before the first event that is still kept."""
    answer = jobs.http.get(f"/os/v1/jobs/{job_id}/events")
    if answer.status_code == 200:
        return 0
    return int(answer.json()["error"]["details"]["first"]) - 1


def test_a_program_that_takes_too_much_memory_is_killed_for_it(jobs: Jobs) -> None:
    job = jobs.end(
        jobs.submit(
            {"do": "allocate", "size_bytes": 400 << 20},
            {"do": "sleep", "seconds": 60, "polite": False},
            memory_bytes=128 << 20,
        )
    )
    assert (job["state"], job["error"]["code"]) == ("failed", "program_failed")
    assert "of 128 MiB" in job["reason"]


def test_the_third_death_of_its_worker_is_its_own_with_the_reasons(jobs: Jobs) -> None:
    job_id = jobs.submit({"do": "kill"})
    job = jobs.end(job_id)
    assert (job["state"], job["attempt"], job["num_deaths"]) == ("dead", 3, 3)
    assert "signal 9" in job["reason"]
    deaths = [reason for _, reason in jobs.story(job_id) if "its worker died" in reason]
    assert len(deaths) == 3


def test_a_program_that_stops_itself_is_replaced_and_the_server_stays_ready(jobs: Jobs) -> None:
    job_id = jobs.submit(HERE, {"do": "hang", "stopped": True, "until_attempt": 1})
    jobs.running(job_id)
    for event in jobs.follow(job_id):
        assert jobs.http.get("/readyz").status_code == 200
        if "stood still" in str(event["value"]):
            break
    job = jobs.end(job_id)
    assert (job["state"], job["attempt"], job["num_deaths"]) == ("succeeded", 2, 1)


def test_a_worker_killed_from_outside_is_replaced_and_the_job_goes_on(own: Server) -> None:
    with own.client() as client:
        jobs = Jobs(client)
        job_id = jobs.submit(HERE, {"do": "count", "to": 60, "every": 5, "delay_s": 0.02})
        jobs.until(job_id, lambda e: e["kind"] == "here")
        os.kill(worker_pid(own), signal.SIGKILL)
        job = jobs.end(job_id)
    assert (job["state"], job["num_deaths"]) == ("succeeded", 1)
    assert (job["outputs"]["count"], job["outputs"]["sum"]) == (60, 60 * 61 // 2)


# who may, and what is the same


def test_a_tenant_knows_nothing_of_anothers_jobs(server: Server, jobs: Jobs) -> None:
    key = jobs.http.post("/os/v1/keys", json={"name": "other", "tenant": "elsewhere"})
    assert key.status_code in (200, 201), key.text
    job_id = jobs.submit({"do": "return"})
    with server.client(token=key.json()["secret"]) as client:
        theirs = Jobs(client)
        paths = (f"/os/v1/jobs/{job_id}", f"/os/v1/jobs/{job_id}/events")
        for path in (*paths, f"/os/v1/processes/{job_id}"):
            assert client.get(path).status_code == 404, path
        assert client.post(f"/os/v1/jobs/{job_id}/cancel").status_code == 404
        assert client.delete(f"/os/v1/processes/{job_id}").status_code == 404
        body = {"program": "drill", "needs": [job_id]}
        assert client.post("/os/v1/jobs", json=body).status_code == 404
        assert client.get("/os/v1/jobs").json()["jobs"] == []
        mine = theirs.submit({"do": "return"})
        assert [j["job_id"] for j in client.get("/os/v1/jobs").json()["jobs"]] == [mine]
        assert theirs.end(mine)["state"] == "succeeded"


def test_a_submission_repeated_with_its_key_is_the_same_job(jobs: Jobs) -> None:
    body = {"program": "drill", "inputs": {"steps": []}}
    headers = {"Idempotency-Key": "once"}
    first, second = (jobs.http.post("/os/v1/jobs", json=body, headers=headers) for _ in range(2))
    assert first.json()["job"]["job_id"] == second.json()["job"]["job_id"]
    other = jobs.http.post("/os/v1/jobs", json={**body, "name": "x"}, headers=headers)
    assert other.status_code == 409, other.text


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        ({"program": "dril"}, "program"),
        ({"program": "drill", "nice": 20}, "nice"),
        ({"program": "drill", "memory_bytes": 1 << 50}, "memory_bytes"),
        ({"program": "drill", "expires_ns": 1}, "expires_ns"),
        ({"program": "drill", "needs": ["job_" + "0" * 32]}, "needs"),
    ],
)
def test_what_cannot_be_is_refused_at_once(jobs: Jobs, spec: dict[str, Any], param: str) -> None:
    answer = jobs.http.post("/os/v1/jobs", json=spec)
    assert 400 <= answer.status_code < 500 or answer.status_code == 503, answer.text
    assert answer.json()["error"]["message"]


# families


def test_children_end_with_their_parent(jobs: Jobs) -> None:
    long = {"do": "sleep", "seconds": 60}
    parent = jobs.submit(HERE, long, name="parent")
    child = jobs.submit(HERE, long, parent_id=parent)
    waiting = jobs.submit(long, parent_id=parent, needs=[child])
    for job_id in (parent, child):
        jobs.running(job_id)
    assert jobs.post(f"/os/v1/jobs/{parent}/cancel").status_code == 200
    assert [jobs.end(job_id)["state"] for job_id in (parent, child, waiting)] == ["cancelled"] * 3


def test_jobs_wait_for_what_they_need_and_fall_with_it(jobs: Jobs) -> None:
    good, bad = jobs.submit({"do": "return"}), jobs.submit({"do": "raise"})
    after_good = jobs.submit({"do": "return"}, needs=[good])
    after_both = jobs.submit({"do": "return"}, needs=[after_good, bad])
    assert jobs.end(after_good)["state"] == "succeeded"
    assert jobs.get(after_good)["started_ns"] >= jobs.get(good)["ended_ns"]
    job = jobs.end(after_both)
    assert job["state"] == "cancelled"
    assert job["attempt"] == 0


# coming back


def test_a_job_goes_on_after_the_server_was_killed_and_ends_once(own: Server) -> None:
    with own.client() as client:
        jobs = Jobs(client)
        job_id = jobs.submit(
            HERE,
            {"do": "count", "to": 80, "every": 10, "delay_s": 0.02},
            {"do": "result", "num_results": 3},
        )
        jobs.until(job_id, lambda e: e["kind"] == "here")
        behind = jobs.submit({"do": "return"}, needs=[job_id])
        before = _checkpointed(jobs, job_id)
    own.kill()
    own.start()
    with own.client() as client:
        jobs = Jobs(client)
        job = jobs.end(job_id)
        assert job["state"] == "succeeded"
        assert (job["outputs"]["count"], job["outputs"]["sum"]) == (80, 80 * 81 // 2)
        assert job["outputs"]["resumed_at"][-1] >= before
        assert job["num_deaths"] == 0
        content = client.get(f"/v1/files/{job['outputs']['files']['output']}/content").text
        assert len(content.splitlines()) == 3
        assert jobs.end(behind)["state"] == "succeeded"
        numbers = [event["number"] for event in jobs.events(job_id)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert [s for s, _ in jobs.story(job_id)].count("succeeded") == 1


def _checkpointed(jobs: Jobs, job_id: str) -> int:
    """Follow it until it has made a checkpoint, by its own word; where that was."""
    query = {"follow": "true"}
    with jobs.http.stream("GET", f"/os/v1/jobs/{job_id}/events", params=query):
        while True:
            progress = jobs.get(job_id).get("progress")
            if progress and progress["done"] >= 10:
                return int(progress["done"])


def test_suspended_and_resumed_it_counts_as_if_nothing_had_been(own: Server) -> None:
    with own.client() as client:
        jobs = Jobs(client)
        job_id = jobs.submit(HERE, {"do": "count", "to": 100, "every": 1000, "delay_s": 0.01})
        jobs.running(job_id)
        assert jobs.post(f"/os/v1/processes/{job_id}/suspend").status_code == 200
        jobs.until(job_id, lambda e: in_state("suspended")(e) and "gave way" in str(e["value"]))
        assert jobs.get(job_id)["state"] == "suspended"
    own.stop()
    own.start()  # an operator's wish outlives the server
    with own.client() as client:
        jobs = Jobs(client)
        assert jobs.get(job_id)["state"] == "suspended"
        assert jobs.post(f"/os/v1/processes/{job_id}/resume").status_code == 200
        job = jobs.end(job_id)
    assert job["state"] == "succeeded"
    assert (job["outputs"]["count"], job["outputs"]["sum"]) == (100, 5050)
    assert len(job["outputs"]["resumed_at"]) == 2
    assert job["attempt"] == 2


def test_a_stopping_server_lets_jobs_put_away_what_they_have(own: Server) -> None:
    with own.client() as client:
        jobs = Jobs(client)
        polite = jobs.submit(HERE, {"do": "count", "to": 40, "every": 1000, "delay_s": 0.02})
        rude = jobs.submit(HERE, {"do": "sleep", "seconds": 3, "polite": False})
        for job_id in (polite, rude):
            jobs.running(job_id)
    assert own.stop() == 0
    own.start()
    with own.client() as client:
        jobs = Jobs(client)
        for job_id in (polite, rude):
            job = jobs.end(job_id)
            assert (job["state"], job["num_deaths"], job["attempt"]) == ("succeeded", 0, 2)
        assert jobs.get(polite)["outputs"]["resumed_at"][1] > 0


# beside requests


def test_what_computes_freezes_while_somebody_more_urgent_is_served(own: Server) -> None:
    with own.client() as client:
        jobs = Jobs(client)
        job_id = jobs.submit(HERE, {"do": "spin", "seconds": 2.5}, program="drill-compute")
        jobs.running(job_id)
        stop = threading.Event()

        def chat() -> None:
            with own.client() as mine:
                while not stop.is_set():
                    mine.post("/v1/chat/completions", json=SLOW)

        asking = threading.Thread(target=chat)
        asking.start()
        try:
            jobs.until(job_id, in_state("frozen"))
            pid = worker_pid(own)
            assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
            assert client.get("/readyz").status_code == 200
        finally:
            stop.set()
            asking.join()
        jobs.until(job_id, lambda e: "nothing more urgent" in str(e["value"]))
        assert jobs.end(job_id)["state"] == "succeeded"


SLOW = {
    "model": "echo",
    "messages": [{"role": "user", "content": "a" * 60}],
    "service_tier": "priority",
    "llmos": {"driver": {"delay_ms": 10}},
}


def test_many_jobs_share_few_slots_and_all_end(jobs: Jobs) -> None:
    many = [jobs.submit({"do": "result", "num_results": 1}) for _ in range(12)]
    assert {jobs.end(job_id)["state"] for job_id in many} == {"succeeded"}


def test_kill_ends_a_job_and_why_says_by_whom(jobs: Jobs) -> None:
    job_id = jobs.submit(HERE, {"do": "sleep", "seconds": 60, "polite": False})
    jobs.running(job_id)
    assert jobs.http.delete(f"/os/v1/processes/{job_id}").status_code == 200
    assert jobs.end(job_id)["state"] == "cancelled"
    assert any("killed by" in reason for _, reason in jobs.story(job_id))
    assert jobs.http.delete(f"/os/v1/processes/{job_id}").status_code == 409
