"""/os/v1/jobs, schedules, programs, backup and the disk."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmos.abi.home import BackupReport, DiskReport
from llmos.abi.jobs import JobEvent, JobFilter, JobRecord, JobSpec, JobState, Schedule
from llmos.abi.principal import ServiceClass
from llmos.abi.program import ProgramEntry
from llmos.abi.syscall import Done, ResumeProcess, SuspendProcess, Syscall
from llmos.abi.syscall_jobs import (
    AddSchedule,
    BackUp,
    CancelJob,
    CollectBlobs,
    FollowJob,
    JobEvents,
    JobList,
    JobReply,
    ListJobs,
    ListPrograms,
    ListSchedules,
    ProgramList,
    ReadJobEvents,
    RemoveJob,
    RemoveSchedule,
    RetryJob,
    ScheduleList,
    ShowDisk,
    ShowJob,
    SubmitJob,
)
from llmos.errors import NotFound, OffsetLost
from tests.unit.api.fake_gate import ADMIN, CREATED_NS, FakeGate, Script, edge

JOB_ID = "job_" + "0" * 32
OTHER_ID = "job_" + "1" * 32
JOB = JobRecord(
    JOB_ID,
    ADMIN,
    JobSpec("drill", inputs={"service_class": 7}, service_class=ServiceClass.DEFAULT),
    JobState.RUNNING,
    CREATED_NS,
    1,
)
SCHEDULE = Schedule("sch_1", ADMIN, "0 3 * * *", JobSpec("drill"), CREATED_NS, CREATED_NS)


def says(result: Any) -> Script:
    async def script(gate: FakeGate, call: Syscall) -> None:
        gate.reply(call, result)

    return script


def asked(
    method: str, path: str, result: Any, kind: type, body: Any = None, **headers: str
) -> tuple[Any, Any]:
    """What the gate was asked, and what the client was answered."""

    async def scene() -> tuple[Any, Any]:
        async with edge({kind: says(result)}) as e:
            response = await e.client.request(method, path, json=body, headers=headers)
            assert response.status_code == 200, response.text
            (call,) = e.gate.bodies
            return call, response.json()

    return asyncio.run(scene())


def test_a_job_is_submitted() -> None:
    body = {
        "program": "drill", "inputs": {"service_class": 7, "s": "你好"}, "class": "default",
        "needs": [OTHER_ID, "batch_" + "2" * 32], "files": {"a": "file_1"}, "nice": 3,
        "timeout_s": 5, "metadata": {"k": "v"}, "parent_id": None,
    }  # fmt: skip
    call, answer = asked(
        "POST", "/os/v1/jobs", JobReply(JOB, 1.5), SubmitJob, body, **{"idempotency-key": "k"}
    )
    assert call.spec == JobSpec(
        "drill", inputs=body["inputs"], files={"a": "file_1"}, service_class=ServiceClass.DEFAULT,
        nice=3, needs=[OTHER_ID, "job_" + "2" * 32], timeout_s=5, metadata={"k": "v"},
    )  # fmt: skip
    assert call.idempotency.key == "k"
    assert answer["eta_s"] == 1.5
    assert answer["job"]["spec"]["service_class"] == "default"
    assert answer["job"]["spec"]["inputs"] == {"service_class": 7}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "program"),
        ({"program": ""}, "program"),
        ({"program": "infer"}, "program"),
        ({"program": "d", "inputs": []}, "inputs"),
        ({"program": "d", "inputs": {"n": 2**70}}, "inputs"),
        ({"program": "d", "class": "urgent"}, "class"),
        ({"program": "d", "nice": 20}, "nice"),
        ({"program": "d", "needs": ["x"]}, "id"),
        ({"program": "d", "max_attempts": 0}, "max_attempts"),
        ({"program": "d", "timeout_s": 0}, "timeout_s"),
        ({"program": "d", "memory_bytes": -1}, "memory_bytes"),
        ({"program": "d", "expires_ns": 1.5}, "expires_ns"),
        ({"program": "d", "programm": 1}, "programm"),
    ],
)
def test_a_bad_job_names_its_field(fields: dict[str, Any], param: str) -> None:
    async def scene() -> None:
        async with edge() as e:
            response = await e.post("/os/v1/jobs", fields)
            assert response.status_code in (400, 404), response.text
            assert response.json()["error"]["param"] == param
            assert not e.gate.calls

    asyncio.run(scene())


LIST_CASES = [
    ("", JobFilter()),
    (
        "?state=live&limit=7",
        JobFilter(
            states=[JobState.BLOCKED, JobState.PENDING, JobState.RUNNING, JobState.SUSPENDED],
            limit=7,
        ),
    ),
    (
        "?state=dead,failed&program=batch,infer",
        JobFilter(programs=["batch", "infer"], states=[JobState.DEAD, JobState.FAILED]),
    ),
    (
        f"?tenant=t&parent={OTHER_ID}&after=resp_{'2' * 32}",
        JobFilter("t", parent_id=OTHER_ID, after="job_" + "2" * 32),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("query", "wanted"), LIST_CASES)
def test_jobs_are_listed(query: str, wanted: JobFilter) -> None:
    call, answer = asked("GET", f"/os/v1/jobs{query}", JobList([JOB], True), ListJobs)
    assert call == ListJobs(wanted)
    assert (len(answer["jobs"]), answer["has_more"]) == (1, True)


@pytest.mark.parametrize(
    ("method", "path", "call", "result"),
    [
        ("GET", f"/jobs/{JOB_ID}", ShowJob(JOB_ID), JobReply(JOB)),
        ("GET", f"/jobs/batch_{'0' * 32}", ShowJob(JOB_ID), JobReply(JOB)),
        ("POST", f"/jobs/{JOB_ID}/cancel", CancelJob(JOB_ID), JobReply(JOB)),
        ("POST", f"/jobs/{JOB_ID}/retry", RetryJob(JOB_ID), JobReply(JOB)),
        ("DELETE", f"/jobs/{JOB_ID}", RemoveJob(JOB_ID), JobReply(JOB)),
        (
            "GET",
            f"/jobs/{JOB_ID}/events?after=4&limit=2&kind=log,metric",
            ReadJobEvents(JOB_ID, 4, 2, ["log", "metric"]),
            JobEvents([JobEvent(JOB_ID, 5, CREATED_NS, "log", {"max_class": 9})]),
        ),
        ("GET", "/programs", ListPrograms(), ProgramList([ProgramEntry("drill", "a:b")])),
        ("GET", "/schedules", ListSchedules(), ScheduleList([SCHEDULE])),
        ("DELETE", "/schedules/sch_1", RemoveSchedule("sch_1"), ScheduleList([SCHEDULE])),
        ("GET", "/disk", ShowDisk(), DiskReport(9, 8, 7, 6, 5)),
        ("POST", "/blobs/collect", CollectBlobs(), DiskReport(9, 8, 7, 6, 5)),
        ("POST", "/processes/job_1/suspend", SuspendProcess("job_1"), Done("job_1")),
        ("POST", "/processes/job_1/resume", ResumeProcess("job_1"), Done("job_1")),
    ],
)
def test_a_system_call_per_route(method: str, path: str, call: Any, result: Any) -> None:
    made, answer = asked(method, "/os/v1" + path, result, type(call))
    assert made == call
    assert "type" not in answer
    assert answer


def test_a_schedule_is_added() -> None:
    body = {"cron": "0 3 * * *", "timezone": "Europe/Vienna", "spec": {"program": "drill"}}
    call, answer = asked("POST", "/os/v1/schedules", ScheduleList([SCHEDULE]), AddSchedule, body)
    assert call == AddSchedule("0 3 * * *", JobSpec("drill"), "Europe/Vienna")
    assert answer["schedules"][0]["cron"] == "0 3 * * *"


def test_nulls_of_a_schedules_job_are_as_absent() -> None:
    spec = {"program": "drill", "name": None, "metadata": None}
    body = {"cron": "0 3 * * *", "spec": spec, "timezone": None}
    call, _ = asked("POST", "/os/v1/schedules", ScheduleList([SCHEDULE]), AddSchedule, body)
    assert call == AddSchedule("0 3 * * *", JobSpec("drill"), "UTC")


def test_a_backup_is_the_owners_to_ask_for() -> None:
    report = BackupReport("/b", 3, 4, 0.5)

    async def scene(client_addr: tuple[str, int]) -> tuple[int, int]:
        async with edge({BackUp: says(report)}, client_addr) as e:
            response = await e.post("/os/v1/backup", {"path": "/b"})
            return response.status_code, len(e.gate.calls)

    assert asyncio.run(scene(("uid:4242", 0))) == (200, 1)
    assert asyncio.run(scene(("127.0.0.1", 1))) == (400, 0)


def _log(*numbers: int, kind: str = "log") -> list[JobEvent]:
    return [JobEvent(JOB_ID, n, CREATED_NS, kind, {"text": f"行 {n}"}) for n in numbers]


def test_a_log_is_followed_and_continued() -> None:
    async def follow(gate: FakeGate, call: Syscall) -> None:
        assert isinstance(call.body, FollowJob)
        gate.emit(call, *[e for e in _log(1, 2) if e.number > call.body.after])
        gate.emit(call, *_log(3, kind="bad\nkind"))
        gate.reply(call, JobReply(JOB))

    async def scene() -> None:
        async with edge({FollowJob: follow}) as e:
            path = f"/os/v1/jobs/{JOB_ID}/events?follow=true"
            whole = (await e.client.get(path)).text
            ids = [line for line in whole.split("\n") if line.startswith("id: ")]
            assert ids == ["id: 1", "id: 2", "id: 3"]
            assert "event: bad" not in whole
            blocks = whole.strip().split("\n\n")
            assert blocks[-1].startswith("event: done\n")
            assert json.loads(blocks[-1].split("data: ")[1])["job"]["job_id"] == JOB_ID
            rest = await e.client.get(path, headers={"last-event-id": "1"})
            assert rest.text == whole[whole.index("id: 2") :]
            assert (await e.client.get(path, headers={"last-event-id": "x"})).status_code == 400

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("error", "status"), [(NotFound("no job"), 404), (OffsetLost("gone"), 410)]
)
def test_a_log_that_cannot_be_followed_is_a_plain_error(error: Exception, status: int) -> None:
    async def refuse(gate: FakeGate, call: Syscall) -> None:
        raise error

    async def scene() -> None:
        async with edge({FollowJob: refuse}) as e:
            response = await e.client.get(f"/os/v1/jobs/{JOB_ID}/events?follow=1&after=7")
            assert response.status_code == status

    asyncio.run(scene())


def test_a_silent_log_sends_a_sign_of_life() -> None:
    async def follow(gate: FakeGate, call: Syscall) -> None:
        gate.emit(call, *_log(1))
        silence = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.1, silence.set_result, None)
        await silence  # nothing to wait for but time itself
        gate.reply(call, JobReply(JOB))

    async def scene() -> None:
        async with edge({FollowJob: follow}, keepalive_comment_s=0.02) as e:
            response = await e.client.get(f"/os/v1/jobs/{JOB_ID}/events?follow=true")
            assert ": keep-alive" in response.text
            assert [ack.num_events for ack in e.gate.acks] == [1]

    asyncio.run(scene())


def test_the_document_has_forms_and_headers() -> None:
    async def scene() -> None:
        async with edge() as e:
            paths = (await e.client.get("/openapi.json")).json()["paths"]
            form = paths["/v1/files"]["post"]["requestBody"]["content"]["multipart/form-data"]
            assert {"file", "purpose"} <= set(form["schema"]["properties"])
            for path in ("/v1/files", "/v1/batches", "/v1/responses", "/os/v1/jobs"):
                named = {p["name"]: p["in"] for p in paths[path]["post"]["parameters"]}
                assert named["Idempotency-Key"] == "header"

    asyncio.run(scene())


def test_bad_queries_and_ids() -> None:
    async def scene() -> None:
        async with edge() as e:
            for path, status in (
                ("/os/v1/jobs?state=asleep", 400),
                ("/os/v1/jobs?limit=1001", 400),
                ("/os/v1/jobs?colour=red", 400),
                ("/os/v1/jobs?after=x", 404),
                ("/os/v1/jobs/x", 404),
                (f"/os/v1/jobs/{JOB_ID.upper()}", 404),
                (f"/os/v1/jobs/{JOB_ID}/events?after=-1", 400),
                (f"/os/v1/jobs/{JOB_ID}/events?follow=perhaps", 400),
            ):
                assert (await e.client.get(path)).status_code == status, path
            for body in ({}, {"cron": "0 3 * * *"}, {"cron": "x", "spec": {"program": "d"}}):
                assert (await e.post("/os/v1/schedules", body)).status_code == 400
            assert not e.gate.calls

    asyncio.run(scene())
