"""`job`, `file`, `suspend`, `resume`: what they ask the server, what they show, how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.cli import joblogs
from tests.unit.cli.conftest import Run
from tests.unit.sdk.fake import Server, refusal

JOB_ID = "job_0193aaaaaaaaaaaaaaaaaaaaaaaa00000001"
NOW_NS = 1_700_000_000_000_000_000
RECORD: dict[str, Any] = {
    "job_id": JOB_ID,
    "principal": {
        "principal_id": "prn_1",
        "tenant_id": "ten_1",
        "name": "alice",
        "max_class": "default",
    },
    "spec": {"program": "batch", "service_class": "default", "inputs": {"service_class": "mine"}},
    "state": "running",
    "created_ns": NOW_NS,
    "epoch": 2,
    "reason": "line 3",
    "attempt": 1,
    "progress": {"done": 3, "total": 12, "unit": "lines"},
}
DONE = {**RECORD, "state": "succeeded", "ended_ns": NOW_NS + 1, "reason": "all lines answered"}
FILE = {"id": "file_1", "bytes": 5, "created_at": 1, "filename": "a.jsonl", "purpose": "batch"}


def ok(value: Any) -> httpx.Response:
    return httpx.Response(200, json=value)


def event(number: int, kind: str = "log", **value: Any) -> dict[str, Any]:
    return {"job_id": JOB_ID, "number": number, "at_ns": NOW_NS, "kind": kind, "value": value}


def frame(kind: str, data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


@pytest.fixture
def jobs(server: Server) -> Server:
    server.routes["GET /os/v1/jobs"] = ok({"jobs": [RECORD], "has_more": False})
    server.routes["POST /os/v1/jobs"] = ok({"job": RECORD})
    return server


def test_submit_sends_what_was_asked_and_prints_the_id(llmos: Run, jobs: Server) -> None:
    done = llmos(
        *("job", "submit", "batch", "-i", "endpoint=/v1/chat/completions", "-i", "window=8"),
        *("--inputs", '{"window": 1, "text": "你好🙂"}', "--name", "夜间", "--class", "default"),
        *("--nice", "5", "--needs", "00000001", "--attempts", "2", "--memory-mb", "100"),
        *("--idempotency-key", "k1"),
    )
    assert (done.code, done.out) == (0, JOB_ID + "\n")
    assert jobs.requests[-1].headers["idempotency-key"] == "k1"
    assert jobs.body() == {
        "program": "batch",
        "inputs": {"window": 8, "text": "你好🙂", "endpoint": "/v1/chat/completions"},
        "name": "夜间",
        "class": "default",
        "nice": 5,
        "needs": [JOB_ID],
        "memory_bytes": 100_000_000,
        "max_attempts": 2,
    }


def test_submit_sends_files_first(llmos: Run, jobs: Server, tmp_path: Path) -> None:
    path = tmp_path / '问 "one".jsonl'
    path.write_bytes(b"{}\n" * 3)
    jobs.routes["POST /v1/files"] = ok(FILE)
    done = llmos("job", "submit", "batch", "--file", f"input={path}", "--file", "more=file_7")
    assert done.code == 0
    form, submitted = jobs.requests[-2:]
    assert form.headers["content-length"] == str(len(form.content))
    assert 'filename="问 %22one%22.jsonl"'.encode() in form.content
    assert b"{}\n" * 3 in form.content
    assert json.loads(submitted.content)["files"] == {"input": "file_1", "more": "file_7"}


@pytest.mark.parametrize(
    "args",
    [
        ("--input", "no equals"),
        ("--inputs", "[1]"),
        ("--inputs", "@/nowhere/at/all"),
        ("--file", "input="),
        ("--file", "input=/nowhere/at/all"),
        ("--needs", "zzz"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(
    llmos: Run, jobs: Server, args: tuple[str, str]
) -> None:
    assert llmos("job", "submit", "batch", *args).code == 1
    assert not [r for r in jobs.requests if r.method == "POST"]


def test_a_schedule_is_made_by_cron(llmos: Run, jobs: Server) -> None:
    made = {
        "schedule_id": "sch_1",
        "principal": RECORD["principal"],
        "cron": "0 3 * * *",
        "spec": RECORD["spec"],
        "created_ns": 1,
        "next_ns": 2,
    }
    jobs.routes["POST /os/v1/schedules"] = ok({"schedules": [made]})
    done = llmos("job", "submit", "batch", "--cron", "0 3 * * *", "--timezone", "Asia/Shanghai")
    assert (done.code, done.out) == (0, "sch_1\n")
    assert jobs.body()["timezone"] == "Asia/Shanghai"
    jobs.routes["GET /os/v1/schedules"] = ok({"schedules": [made]})
    assert "0 3 * * *" in llmos("job", "schedules").out


def test_ls_and_show_tell_how_far_it_is(llmos: Run, jobs: Server) -> None:
    assert "25 % of 12 lines" in llmos("job", "ls").out
    jobs.routes[f"GET /os/v1/jobs/{JOB_ID}"] = ok({"job": RECORD, "eta_s": 3.21})
    shown = llmos("job", "show", "00000001").out
    assert "3.2 s" in shown
    assert '{"service_class":"mine"}' in shown
    assert (
        llmos("job", "show", "00000001", "--json").json["job"]["spec"]["service_class"] == "default"
    )


def test_logs_page_through_and_show_programs_own_lines(llmos: Run, jobs: Server) -> None:
    pages = iter([[event(1, text="hello\x1b[31m"), event(2, "metric", loss=0.5)], []])
    jobs.routes[f"GET /os/v1/jobs/{JOB_ID}/events"] = lambda _: ok({"events": next(pages)})
    first, second = llmos("job", "logs", JOB_ID).out.splitlines()
    assert first.endswith("log       hello\\x1b[31m")
    assert second.endswith('metric    {"loss":0.5}')
    assert jobs.requests[-1].url.params["after"] == "2"


def test_following_goes_on_where_a_restart_of_the_server_broke_it_off(
    llmos: Run, jobs: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    bodies = iter(
        [
            frame("log", event(1, text="one")),
            refusal(503, "shutting_down"),
            frame("log", event(2, text="two")) + frame("done", {"job": DONE}),
        ]
    )

    def answer(_: httpx.Request) -> httpx.Response:
        body = next(bodies)
        return body if isinstance(body, httpx.Response) else httpx.Response(200, content=body)

    jobs.routes[f"GET /os/v1/jobs/{JOB_ID}/events"] = answer
    done = llmos("job", "logs", JOB_ID, "-f")
    assert done.code == 0
    assert [line.split()[-1] for line in done.out.splitlines()] == ["one", "two"]
    assert [r.url.params["after"] for r in jobs.requests] == ["0", "1", "1"]
    assert "succeeded" in done.err


def test_a_followed_job_that_fails_is_a_failure(llmos: Run, jobs: Server) -> None:
    failed = {**RECORD, "state": "dead", "error": {"code": "worker_lost", "message": "thrice"}}
    jobs.routes[f"GET /os/v1/jobs/{JOB_ID}/events"] = httpx.Response(
        200, content=frame("done", {"job": failed})
    )
    done = llmos("job", "submit", "batch", "-f", "--json")
    assert (done.code, done.json["state"]) == (1, "dead")


@pytest.mark.parametrize(
    ("verb", "route"),
    [
        ("cancel", f"POST /os/v1/jobs/{JOB_ID}/cancel"),
        ("retry", f"POST /os/v1/jobs/{JOB_ID}/retry"),
        ("rm", f"DELETE /os/v1/jobs/{JOB_ID}"),
    ],
)
def test_jobs_are_steered_by_a_part_of_their_id(
    llmos: Run, jobs: Server, verb: str, route: str
) -> None:
    jobs.routes[route] = ok({"job": DONE})
    assert llmos("job", verb, "00000001", JOB_ID).code == 0
    assert len([r for r in jobs.requests if r.method != "GET"]) == 1
    assert llmos("job", verb, "nothing").code == 1


@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_processes_are_suspended_and_resumed(llmos: Run, server: Server, verb: str) -> None:
    server.routes[f"POST /os/v1/processes/{JOB_ID}/{verb}"] = ok({"done": f"{verb}ed"})
    assert llmos(verb, JOB_ID).out == f"{verb}ed\n"


def test_files_go_and_come_whole_or_not_at_all(llmos: Run, server: Server, tmp_path: Path) -> None:
    server.routes["GET /v1/files"] = ok({"data": [FILE]})
    assert "a.jsonl" in llmos("file", "ls").out
    server.routes["GET /v1/files/file_1/content"] = httpx.Response(200, content="早".encode() * 9)
    target = tmp_path / "out"
    assert llmos("file", "get", "file_1", "-o", str(target)).code == 0
    assert target.read_text("utf-8") == "早" * 9
    server.routes["GET /v1/files/file_2/content"] = refusal(404, "not_found")
    assert llmos("file", "get", "file_2", "-o", str(tmp_path / "none")).code == 1
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "none.part").exists()


def test_the_lines_of_a_log_say_what_was_decided() -> None:
    from llmos.abi.jobs import JobEvent

    made = joblogs.event_line(
        JobEvent(JOB_ID, 1, NOW_NS, "state", {"state": "frozen", "reason": "chat is on"})
    )
    assert made == "2023-11-14T22:13:20.000Z  state     frozen: chat is on"
