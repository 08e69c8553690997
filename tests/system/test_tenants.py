"""Tenants beside each other, and keys that are no more: what one of them asks for costs the others
nothing but their share."""

from __future__ import annotations

import time
from typing import Any

import httpx

from tests.system.server import Server

WAIT_S = 60.0
EVERY_MINUTE = {"cron": "* * * * *", "spec": {"program": "drill", "inputs": {"steps": []}}}


def user(server: Server, name: str, tenant: str) -> httpx.Client:
    """A client with a new key."""
    with server.client() as admin:
        made = admin.post("/os/v1/keys", json={"name": name, "tenant": tenant})
    assert made.status_code == 200, made.text
    return server.client(made.json()["secret"])


def submit(client: httpx.Client, seconds: float, **spec: Any) -> str:
    steps = [{"do": "sleep", "seconds": seconds}]
    body = {"program": "drill", "inputs": {"steps": steps}, **spec}
    answer = client.post("/os/v1/jobs", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job"]["job_id"])


def end(client: httpx.Client, job_id: str) -> str:
    """The state it ended in."""
    path = f"/os/v1/processes/{job_id}/wait"
    assert client.get(path, params={"timeout_s": WAIT_S}).status_code == 200
    return str(client.get(f"/os/v1/jobs/{job_id}").json()["job"]["state"])


def schedules(client: httpx.Client) -> list[str]:
    found = client.get("/os/v1/schedules").json()["schedules"]
    return [each["principal"]["name"] for each in found]


def test_one_tenants_jobs_do_not_keep_anothers_from_their_turn(own_server: Server) -> None:
    """Not even when they fill the window in which the policy sees them."""
    own_server.options = (
        *("--set", "jobs.max_running=1"),
        *("--set", "jobs.claim_window=8"),
        *("--set", "jobs.poll_interval_s=30"),
    )
    own_server.start()
    with user(own_server, "greedy", "one") as greedy, user(own_server, "modest", "two") as modest:
        many = [submit(greedy, 0.2) for _ in range(30)]
        assert end(modest, submit(modest, 0.0)) == "succeeded"
        waiting = greedy.get("/os/v1/jobs", params={"state": "pending"}).json()["jobs"]
        assert len(waiting) >= len(many) - 10
    assert own_server.stop() == 0


def test_schedules_end_with_their_key_and_accepted_jobs_do_not(own_server: Server) -> None:
    own_server.start()
    leaver, stayer = user(own_server, "leaver", "one"), user(own_server, "stayer", "one")
    with leaver, stayer, own_server.client() as admin:
        for client in (leaver, stayer):
            assert client.post("/os/v1/schedules", json=EVERY_MINUTE).status_code == 200
        later = submit(leaver, 0.0, start_at_ns=time.time_ns() + 10**9)
        assert admin.delete("/os/v1/keys/leaver").status_code == 200
        assert leaver.get("/os/v1/jobs").status_code == 401
        assert schedules(admin) == ["stayer"]
        assert end(stayer, later) == "succeeded"
    assert own_server.stop() == 0


def test_what_a_tenant_may_schedule_is_bounded(own_server: Server) -> None:
    own_server.options = ("--set", "storage.max_schedules=2")
    own_server.start()
    with user(own_server, "a", "one") as one, user(own_server, "b", "two") as two:
        answers = [one.post("/os/v1/schedules", json=EVERY_MINUTE) for _ in range(3)]
        assert [each.status_code for each in answers] == [200, 200, 429]
        assert answers[-1].json()["error"]["code"] == "quota_exceeded"
        assert two.post("/os/v1/schedules", json=EVERY_MINUTE).status_code == 200
        large = {"program": "drill", "inputs": {"steps": [], "x": "x" * (1 << 17)}}
        answer = two.post("/os/v1/schedules", json={"cron": "* * * * *", "spec": large})
        assert answer.status_code == 413, answer.text
        for name in ("start_at_ns", "expires_ns"):
            spec = {"program": "drill", name: time.time_ns() + 10**12}
            answer = two.post("/os/v1/schedules", json={"cron": "* * * * *", "spec": spec})
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["param"] == f"spec.{name}"
    assert own_server.stop() == 0


def test_all_that_is_past_its_time_is_forgotten_at_once(own_server: Server) -> None:
    """However little fits in one transaction."""
    own_server.options = (
        *("--set", "storage.keep_jobs_s=1e-9"),
        *("--set", "storage.retain_jobs=1"),
        *("--set", "jobs.retain_interval_s=4"),
    )
    own_server.start()
    with own_server.client() as client:
        made = [submit(client, 0.0) for _ in range(5)]
        for job_id in made:
            client.get(f"/os/v1/processes/{job_id}/wait", params={"timeout_s": WAIT_S})
        deadline = time.monotonic() + 7.0  # one round; five would be twenty seconds
        while left := client.get("/os/v1/jobs").json()["jobs"]:
            assert time.monotonic() < deadline, left
    assert own_server.stop() == 0
