"""/v1/batches over a store in memory: a batch is a job by another name."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from openai.types import Batch

from llmos.abi.files import FileRecord
from llmos.abi.jobs import BATCH, JobProgress, JobSpec, JobState
from llmos.abi.principal import ServiceClass
from llmos.abi.syscall_jobs import SubmitJob
from llmos.errors import DeadlineExceeded, ErrorInfo, InvalidRequest, WorkerLost
from llmos.programs.batch.check import BadFile, Fault
from llmos.shapes.answers import ErrorAnswer
from llmos.shapes.batches import BatchObject, BatchPage
from tests.unit.api.fake_gate import ADMIN, CREATED_NS, USER, USER_SECRET, Edge, edge
from tests.unit.api.fake_store import FakeStore, hex_id

FILE = "file_" + "a" * 32
ASK = {"input_file_id": FILE, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
STRANGER = {"authorization": f"Bearer {USER_SECRET}"}


@contextlib.asynccontextmanager
async def batching() -> AsyncIterator[tuple[Edge, FakeStore]]:
    store = FakeStore()
    for file_id, owner, purpose in (
        (FILE, ADMIN, "batch"),
        ("file_" + "b" * 32, ADMIN, "user_data"),
        ("file_" + "c" * 32, USER, "batch"),
    ):
        store.files[file_id] = FileRecord(
            file_id, owner.tenant_id, owner.principal_id, "a", purpose, "sha256:0", 1, CREATED_NS
        )
    async with edge(store.scripts) as e:
        yield e, store


def play(scene: Callable[[Edge, FakeStore], Awaitable[None]]) -> None:
    async def run() -> None:
        async with batching() as (e, store):
            await scene(e, store)

    asyncio.run(run())


async def create(e: Edge, **fields: Any) -> dict[str, Any]:
    response = await e.post("/v1/batches", {**ASK, **fields})
    assert response.status_code == 200, response.text
    Batch.model_validate_json(response.content)
    made: dict[str, Any] = BatchObject.model_validate_json(response.content).model_dump()
    return made


def test_a_batch_is_a_job_of_the_program() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        before_s = int(time.time())
        made = await create(
            e,
            metadata={"k": "värde"},
            completion_window="2d",
            output_expires_after={"anchor": "created_at", "seconds": 3600},
        )
        assert (made["status"], made["endpoint"], made["completion_window"]) == (
            "validating", "/v1/chat/completions", "2d",
        )  # fmt: skip
        assert made["metadata"] == {"k": "värde"}
        assert 0 <= made["expires_at"] - before_s - 48 * 3600 <= 5
        submit = e.gate.bodies[-1]
        assert isinstance(submit, SubmitJob)
        spec = submit.spec
        assert (spec.program, spec.files) == (BATCH, {"input": FILE})
        assert spec.service_class is ServiceClass.BATCH
        assert spec.exports_expire_s == 3600
        assert spec.expires_ns is not None
        assert spec.expires_ns > spec.inputs["expires_at"] * 10**9
        assert set(store.jobs) == {made["id"].replace("batch_", "job_")}
        assert (await e.client.get(f"/v1/batches/{made['id']}")).json() == made

    play(scene)


KEPT = {"anchor": "created_at", "seconds": 3600}

BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"completion_window": "24"}, 400, "completion_window"),
    ({"completion_window": "x24h"}, 400, "completion_window"),
    ({"completion_window": "24hx"}, 400, "completion_window"),
    ({"completion_window": "24h\n"}, 400, "completion_window"),
    ({"completion_window": "31d"}, 400, "completion_window"),
    ({"completion_window": "0h"}, 400, "completion_window"),
    ({"endpoint": "/v1/videos"}, 400, "endpoint"),
    ({"endpoint": "/v1/nothing"}, 400, "endpoint"),
    ({"endpoint": 7}, 400, "endpoint"),
    ({"input_file_id": "file_x"}, 404, "input_file_id"),
    ({"input_file_id": "file_" + "b" * 32}, 400, "input_file_id"),
    ({"input_file_id": "file_" + "c" * 32}, 404, "input_file_id"),
    ({"input_file_id": None}, 400, "input_file_id"),
    ({"metadata": {str(i): "v" for i in range(17)}}, 400, "metadata"),
    ({"output_expires_after": {**KEPT, "seconds": 1}}, 400, "output_expires_after.seconds"),
    ({"output_expires_after": {**KEPT, "anchor": "x"}}, 400, "output_expires_after.anchor"),
    ({"input_fil_id": FILE}, 400, "input_fil_id"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "param"), BAD, ids=str)
def test_a_bad_batch_is_refused(fields: dict[str, Any], status: int, param: str) -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        response = await e.post("/v1/batches", {**ASK, **fields})
        assert response.status_code == status, response.text
        assert ErrorAnswer.model_validate_json(response.content).error.param == param
        assert not store.jobs

    play(scene)


def _bad_file() -> ErrorInfo:
    faults = [Fault("invalid_json_line", "The line is not valid JSON.", 7341)]
    return BadFile.of(faults).to_info()


COUNTS = {"total": 3, "completed": 1, "failed": 0}
STATES: list[tuple[dict[str, Any], str]] = [
    ({"state": JobState.PENDING}, "validating"),
    ({"state": JobState.RUNNING}, "validating"),
    ({"state": JobState.RUNNING, "progress": JobProgress(1, 9, "bytes", "x")}, "validating"),
    ({"state": JobState.RUNNING, "progress": JobProgress(1, 3, counts=COUNTS)}, "in_progress"),
    ({"state": JobState.PENDING, "progress": JobProgress(1, 3, counts=COUNTS)}, "in_progress"),
    ({"state": JobState.SUSPENDED, "progress": JobProgress(1, 3, counts=COUNTS)}, "in_progress"),
    (
        {"state": JobState.RUNNING, "progress": JobProgress(1, 3, "", "finalizing", COUNTS)},
        "finalizing",
    ),
    ({"state": JobState.RUNNING, "cancel_reason": "x"}, "cancelling"),
    ({"state": JobState.CANCELLED}, "cancelled"),
    ({"state": JobState.SUCCEEDED, "outputs": {"status": "completed"}}, "completed"),
    ({"state": JobState.SUCCEEDED, "outputs": {"status": "expired"}}, "expired"),
    ({"state": JobState.FAILED, "error": DeadlineExceeded("late").to_info()}, "expired"),
    ({"state": JobState.FAILED, "error": _bad_file()}, "failed"),
    ({"state": JobState.DEAD, "error": WorkerLost("gone").to_info()}, "failed"),
    ({"state": JobState.FAILED, "reason": "why"}, "failed"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status"), STATES, ids=str)
def test_every_state_of_a_job_is_one_of_a_batch(fields: dict[str, Any], status: str) -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await create(e)
        job_id = made["id"].replace("batch_", "job_")
        store.change(job_id, ended_ns=CREATED_NS + 9 * 10**9, **fields)
        response = await e.client.get(f"/v1/batches/{made['id']}")
        Batch.model_validate_json(response.content)
        batch = BatchObject.model_validate_json(response.content)
        assert batch.status == status
        stamped = {
            name for name in ("completed", "failed", "expired", "cancelled")
            if getattr(batch, f"{name}_at") == CREATED_NS // 10**9 + 9
        }  # fmt: skip
        assert stamped == {status} & {"completed", "failed", "expired", "cancelled"}
        assert (batch.errors is not None) == (status == "failed")

    play(scene)


def test_what_is_wrong_with_a_file_is_the_batchs_error() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await create(e)
        job_id = made["id"].replace("batch_", "job_")
        store.change(job_id, state=JobState.FAILED, error=_bad_file())
        failed = (await e.client.get(f"/v1/batches/{made['id']}")).json()
        (error,) = failed["errors"]["data"]
        assert (error["line"], error["code"]) == (7341, "invalid_json_line")
        store.change(job_id, error=InvalidRequest("no", param="inputs").to_info())
        failed = (await e.client.get(f"/v1/batches/{made['id']}")).json()
        assert failed["errors"]["data"] == [
            {"code": "invalid_request", "message": "no", "param": "inputs", "line": None}
        ]

    play(scene)


def test_a_done_batch_names_its_files() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await create(e)
        outputs = {
            "status": "completed",
            "request_counts": {"total": 3, "completed": 2, "failed": 1},
            "files": {"output": "file_1", "error": None},
        }
        store.change(
            made["id"].replace("batch_", "job_"), state=JobState.SUCCEEDED, outputs=outputs
        )
        done = (await e.client.get(f"/v1/batches/{made['id']}")).json()
        assert (done["output_file_id"], done["error_file_id"]) == ("file_1", None)
        assert done["request_counts"] == {"total": 3, "completed": 2, "failed": 1}

    play(scene)


def test_batches_are_cancelled_and_listed() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        ids = [(await create(e))["id"] for _ in range(3)]
        store.add_job(ADMIN, JobSpec("drill"))
        store.add_job(USER, JobSpec(BATCH))
        response = await e.client.get("/v1/batches?limit=2")
        page = BatchPage.model_validate_json(response.content)
        assert [b.id for b in page.data] == ids[:0:-1]
        assert page.has_more
        rest = (await e.client.get(f"/v1/batches?after={page.last_id}")).json()
        assert [b["id"] for b in rest["data"]] == ids[:1]
        cancelled = await e.client.post(f"/v1/batches/{ids[0]}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        assert (await e.client.post(f"/v1/batches/{ids[0]}/cancel")).status_code == 409
        store.change(ids[1].replace("batch_", "job_"), state=JobState.RUNNING)
        cancelling = await e.client.post(f"/v1/batches/{ids[1]}/cancel")
        assert cancelling.json()["status"] == "cancelling"
        for query in ("limit=0", "limit=101", "after=x", "order=asc"):
            assert (await e.client.get(f"/v1/batches?{query}")).status_code in (400, 404)

    play(scene)


def test_only_ones_own_batches_are_there() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await create(e)
        drill = store.add_job(ADMIN, JobSpec("drill"))
        path = f"/v1/batches/{made['id']}"
        assert (await e.client.get(path, headers=STRANGER)).status_code == 404
        assert (await e.client.post(path + "/cancel", headers=STRANGER)).status_code == 404
        for name in (drill.job_id.replace("job_", "batch_"), drill.job_id, "batch_", "batch_x"):
            assert (await e.client.get(f"/v1/batches/{name}")).status_code == 404
        assert (await e.client.get(f"/v1/batches/batch_{hex_id(99)}")).status_code == 404

    play(scene)


def test_an_idempotency_key_makes_one_batch() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        key = {"idempotency-key": "k"}
        first = await e.post("/v1/batches", ASK, headers=key)
        again = await e.post("/v1/batches", dict(reversed(ASK.items())), headers=key)
        assert first.json() == again.json()
        other = await e.post("/v1/batches", {**ASK, "completion_window": "1h"}, headers=key)
        assert other.status_code == 409
        assert len(store.jobs) == 1

    play(scene)
