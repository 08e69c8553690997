"""/os/v1/tasks over a store in memory: a task is a job by another name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from llmos.abi.files import FileRecord
from llmos.abi.jobs import JobProgress, JobState
from llmos.abi.principal import ServiceClass
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import ListModels, Model, ModelList, ShowModel, Syscall
from llmos.abi.syscall_jobs import SubmitJob
from llmos.abi.tasks import TASK, TaskSpec
from llmos.errors import ModelNotFound
from tests.unit.api.fake_gate import ADMIN, CREATED_NS, Edge, FakeGate, edge, model
from tests.unit.api.fake_store import FakeStore

FILE = "file_" + "a" * 32
ITEMS: dict[str, Any] = {"type": "generate", "model": "writer", "input": {"items": ["一", "two"]}}


def version(name: str, *kinds: str, params: int = 1000, chat: bool = True) -> ModelVersion:
    return msgspec.structs.replace(
        model(name), kinds=list(kinds), num_parameters=params, has_chat_template=chat
    )


MODELS = [
    version("echo", "generate", params=0),
    version("writer", "generate", params=5000),
    version("small", "generate", params=100, chat=False),
    version("feelings", "text-classification"),
    version("vectors", "embeddings"),
]


async def _list(gate: FakeGate, call: Syscall) -> None:
    gate.reply(call, ModelList(MODELS))


async def _show(gate: FakeGate, call: Syscall) -> None:
    assert isinstance(call.body, ShowModel)
    found = [m for m in MODELS if call.body.ref in (m.name, m.ref)]
    if not found:
        raise ModelNotFound(f"no model {call.body.ref}", param="model")
    gate.reply(call, Model(found[0]))


def play(scene: Callable[[Edge, FakeStore], Awaitable[None]]) -> None:
    async def run() -> None:
        store = FakeStore()
        store.files[FILE] = FileRecord(
            FILE, ADMIN.tenant_id, ADMIN.principal_id, "in.CSV", "batch", "sha256:0", 1, CREATED_NS
        )
        async with edge({**store.scripts, ListModels: _list, ShowModel: _show}) as e:
            store.sink = e.sink
            await scene(e, store)

    asyncio.run(run())


def submitted(e: Edge) -> tuple[SubmitJob, TaskSpec]:
    (body,) = [b for b in e.gate.bodies if isinstance(b, SubmitJob)]
    return body, msgspec.convert(body.spec.inputs[TASK], TaskSpec)


def test_a_task_becomes_a_job() -> None:
    body = {
        **ITEMS,
        "name": "nightly 🙂",
        "prompt": "{{ text }}",
        "sampling": {"max_tokens": 7, "stop": "\n"},
        "output": {"formats": ["csv", "html"], "columns": []},
        "policy": {
            "class": "default", "nice": 3, "retries": 1, "timeout_s": 2, "max_tokens": 99,
            "prices": {"prompt": 1, "completion": 2.5},
        },
        "metadata": {"k": "v"},
    }  # fmt: skip

    async def scene(e: Edge, _: FakeStore) -> None:
        response = await e.post("/os/v1/tasks", body)
        assert response.status_code == 200, response.text
        job, task = submitted(e)
        assert response.json()["job"]["spec"]["program"] == TASK
        spec = job.spec
        assert (spec.name, spec.nice, spec.metadata) == ("nightly 🙂", 3, {"k": "v"})
        assert spec.service_class is ServiceClass.DEFAULT
        assert spec.expires_ns is None
        assert (task.kind, task.model, task.work, task.is_chat) == (
            "generate", "writer:1", "generate", True,
        )  # fmt: skip
        assert task.items == ["一", "two"]
        assert task.outputs == ["csv", "html"]
        assert task.keep == []
        assert task.sampling.max_tokens == 7
        assert task.sampling.temperature == 0.0
        assert task.policy.prices is not None
        assert (task.policy.retries, task.policy.max_tokens) == (1, 99)
        assert task.reason == ""

    play(scene)


def test_a_file_is_read_as_its_name_says() -> None:
    async def scene(e: Edge, _: FakeStore) -> None:
        await e.post("/os/v1/tasks", {**ITEMS, "input": {"file": FILE, "column": "review"}})
        job, task = submitted(e)
        assert job.spec.files == {"input": FILE}
        assert task.format == "csv"
        assert task.columns == {"text": "review"}

    play(scene)


def test_a_deadline_is_the_tasks_and_a_little_later_the_jobs() -> None:
    async def scene(e: Edge, _: FakeStore) -> None:
        before = time.time()
        await e.post("/os/v1/tasks", {**ITEMS, "policy": {"deadline_s": 60}})
        job, task = submitted(e)
        assert task.policy.expires_at is not None
        assert 59 < task.policy.expires_at - before < 120
        assert job.spec.expires_ns is not None
        assert job.spec.expires_ns / 1e9 > task.policy.expires_at + 600

    play(scene)


@pytest.mark.parametrize(
    ("body", "model", "work"),
    [
        ({"type": "generate"}, "writer:1", "generate"),
        ({"type": "classify"}, "feelings:1", "text-classification"),
        ({"type": "classify", "labels": ["a", "b"]}, "writer:1", "generate"),
        ({"type": "classify", "prompt": "{{ text }}", "labels": ["a"]}, "writer:1", "generate"),
        ({"type": "embed"}, "vectors:1", "embeddings"),
        ({"type": "summarize"}, "writer:1", "generate"),
    ],
)
def test_a_model_is_chosen_and_the_reason_kept(body: Any, model: str, work: str) -> None:
    async def scene(e: Edge, _: FakeStore) -> None:
        response = await e.post("/os/v1/tasks", {**body, "input": {"items": ["x"]}})
        assert response.status_code == 200, response.text
        _, task = submitted(e)
        assert (task.model, task.work) == (model, work)
        assert f"for {work}" in task.reason

    play(scene)


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "nobody"}, 404, "model", "no model nobody"),
    ({"type": "rerank", "model": "auto"}, 404, "model", "no model here does rerank"),
    ({"model": "feelings"}, 400, "model", "feelings:1 is for text-classification"),
    ({"model": "writer", "type": "embed"}, 400, "model", "this embed task"),
    ({"type": "dance"}, 400, "type", "generate"),
    ({"input": {}}, 400, "input", "either"),
    ({"input": {"items": ["x"], "file": FILE}}, 400, "input", "either"),
    ({"input": {"items": []}}, 400, "input.items", "at least 1"),
    ({"input": {"items": [{"text": 1 << 64}]}}, 400, "input.items", "64 bits"),
    ({"input": {"file": "file_" + "9" * 32}}, 404, "file_id", "no file"),
    ({"input": {"items": ["x"], "colum": "y"}}, 400, "input.colum", "column"),
    ({"input": {"items": ["x"], "format": "xls"}}, 400, "input.format", "csv"),
    ({"inputs": {}}, 400, "inputs", "input"),
    ({"output": {"formats": ["pdf"]}}, 400, "output.formats.0", "csv"),
    ({"output": {"formats": []}}, 400, "output.formats", "at least 1"),
    ({"policy": {"retries": -1}}, 400, "policy.retries", "greater"),
    ({"policy": {"deadline_s": 0}}, 400, "policy.deadline_s", "greater"),
    ({"labels": ["a", "a"]}, 400, "labels", "twice"),
    ({"schema": []}, 400, "schema", "dict"),
    ({"language": "english!"}, 400, "language", "pattern"),
]


@pytest.mark.parametrize(("fields", "status", "param", "says"), REFUSED)
def test_what_makes_no_task(fields: dict[str, Any], status: int, param: str, says: str) -> None:
    async def scene(e: Edge, _: FakeStore) -> None:
        response = await e.post("/os/v1/tasks", {**ITEMS, **fields})
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert error["param"] == param
        assert says in error["message"]
        assert not [b for b in e.gate.bodies if isinstance(b, SubmitJob)]

    play(scene)


def test_a_task_is_listed_shown_cancelled_and_its_results_are_a_file() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = (await e.post("/os/v1/tasks", {**ITEMS, "output": {"formats": "csv"}})).json()
        task_id = made["job"]["job_id"]
        path = f"/os/v1/tasks/{task_id}"
        assert (await e.client.get(f"{path}/result")).status_code == 409
        listed = (await e.client.get("/os/v1/tasks?state=live")).json()
        assert [job["job_id"] for job in listed["jobs"]] == [task_id]
        job = store.jobs[task_id]
        progress = JobProgress(1, 2, "rows", "running", {"failed": 0})
        store.jobs[task_id] = msgspec.structs.replace(job, progress=progress)
        assert (await e.client.get(path)).json()["job"]["progress"]["total"] == 2
        outputs = {"files": {"raw:csv": FILE, "rows": FILE, "errors": None}}
        store.jobs[task_id] = msgspec.structs.replace(
            job, state=JobState.SUCCEEDED, outputs=outputs
        )
        assert store.sink is not None
        store.sink.kept["sha256:0"] = b"a"
        for query in ("", "?format=csv", "?format=rows"):
            found = await e.client.get(f"{path}/result{query}")
            assert (found.status_code, found.content) == (200, b"a"), found.text
        empty = await e.client.get(f"{path}/result?format=errors")
        assert (empty.status_code, empty.content) == (200, b"")  # there was none
        missing = await e.client.get(f"{path}/result?format=html")
        assert missing.status_code == 404
        assert "it has csv, rows" in missing.json()["error"]["message"]
        other = (await e.post("/os/v1/tasks", ITEMS)).json()["job"]["job_id"]
        cancelled = await e.post(f"/os/v1/tasks/{other}/cancel", {})
        assert cancelled.json()["job"]["state"] == "cancelled", cancelled.text

    play(scene)


def test_another_job_is_no_task() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = (await e.post("/os/v1/tasks", ITEMS)).json()["job"]["job_id"]
        job = store.jobs[made]
        store.jobs[made] = msgspec.structs.replace(
            job, spec=msgspec.structs.replace(job.spec, program="drill")
        )
        assert (await e.client.get(f"/os/v1/tasks/{made}")).status_code == 404

    play(scene)
