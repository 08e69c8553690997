"""Responses in the background, continued anywhere, and made once."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from llmos.abi.inference import ChatPrompt
from llmos.abi.jobs import JobSpec, JobState
from llmos.abi.program import Generate
from llmos.abi.syscall import Infer, Syscall
from llmos.abi.syscall_jobs import SubmitJob
from llmos.errors import EngineFailed
from tests.unit.api.fake_gate import (
    ADMIN,
    CREATED_NS,
    SECRET,
    Edge,
    FakeGate,
    tokens,
)
from tests.unit.api.fake_store import FakeStore
from tests.unit.api.test_responses import (
    ASK,
    TEXT,
    ask,
    events_of,
    only_job,
    play,
    succeed,
    text_of,
)

# in the background


def test_a_response_in_the_background_is_polled() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await ask(e, background=True, service_tier="flex")
        assert (made["status"], made["background"], made["output"]) == ("queued", True, [])
        (submitted,) = e.gate.bodies
        assert isinstance(submitted, SubmitJob)
        generate = msgspec.convert(submitted.spec.inputs["generate"], Generate)
        assert generate.prompt == ChatPrompt([{"role": "user", "content": ASK["input"]}])
        assert submitted.spec.service_class == 0
        path, job_id = f"/v1/responses/{made['id']}", only_job(store).job_id
        store.change(job_id, state=JobState.RUNNING)
        assert (await e.client.get(path)).json()["status"] == "in_progress"
        succeed(store, job_id)
        done = (await e.client.get(path)).json()
        assert (done["status"], done["output"][0]["content"][0]["text"]) == ("completed", TEXT)
        assert done["completed_at"] == CREATED_NS // 10**9 + 7
        after = await ask(e, previous_response_id=made["id"], input="x")
        assert after["status"] == "completed"

    play(scene)


def test_one_is_cancelled_and_one_fails() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        first, second = await ask(e, background=True), await ask(e, background=True)
        path = f"/v1/responses/{first['id']}"
        for _ in range(2):
            cancelled = (await e.client.post(path + "/cancel")).json()
            assert cancelled["status"] == "cancelled"
        onwards = await e.post("/v1/responses", {**ASK, "previous_response_id": first["id"]})
        assert onwards.status_code == 409
        job_id = second["id"].replace("resp_", "job_")
        store.change(job_id, state=JobState.FAILED, error=EngineFailed("broken").to_info())
        failed = (await e.client.get(f"/v1/responses/{second['id']}")).json()
        assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
        live = await ask(e)
        assert (await e.client.post(f"/v1/responses/{live['id']}/cancel")).status_code == 400

    play(scene)


async def _stream(e: Edge, path: str, **params: Any) -> list[dict[str, Any]]:
    response = await e.client.get(path, params={"stream": "true", **params})
    assert response.status_code == 200, response.text
    return events_of(response.text)


def test_a_stream_in_the_background_is_continued_anywhere() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        reading = asyncio.ensure_future(
            e.post("/v1/responses", {**ASK, "background": True, "stream": True})
        )
        await e.gate.until(lambda: len(e.gate.bodies) == 2)
        job_id = only_job(store).job_id
        store.log(job_id, "state", state="running")
        for text in ("Hi ", "你", ""):
            store.log(job_id, "text", text=text, attempt=1)
        succeed(store, job_id)
        whole = events_of((await reading).text)
        assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
        kinds = [event["type"].removeprefix("response.") for event in whole]
        assert kinds[:5] == [
            "created",
            "queued",
            "in_progress",
            "output_item.added",
            "content_part.added",
        ]
        assert text_of(whole) == TEXT
        assert whole[-1]["type"] == "response.completed"
        path = f"/v1/responses/{job_id.replace('job_', 'resp_')}"
        for after in range(len(whole) - 1):
            assert await _stream(e, path, starting_after=after) == whole[after + 1 :]
        (lost,) = await _stream(e, path, starting_after=len(whole) - 1)
        assert (lost["type"], lost["code"]) == ("error", "offset_lost")

    play(scene)


def test_a_response_begun_anew_is_told_from_its_record_or_not_at_all() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        await ask(e, background=True)
        job_id = only_job(store).job_id
        store.log(job_id, "text", text="Something ", attempt=1)
        store.log(job_id, "text", text=TEXT, attempt=2)
        succeed(store, job_id)
        store.change(job_id, attempt=2)
        path = f"/v1/responses/{job_id.replace('job_', 'resp_')}"
        assert text_of(await _stream(e, path)) == TEXT
        assert (await _stream(e, path, starting_after=6))[-1]["code"] == "offset_lost"

    play(scene)


def test_a_failed_one_ends_its_stream() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        await ask(e, background=True)
        job_id = only_job(store).job_id
        store.change(job_id, state=JobState.DEAD, error=EngineFailed("broken").to_info())
        events = await _stream(e, f"/v1/responses/{job_id.replace('job_', 'resp_')}")
        assert [event["type"] for event in events] == [
            "response.created",
            "response.queued",
            "response.failed",
        ]
        assert events[0]["response"]["error"] is None

    play(scene)


# once


def test_an_idempotency_key_makes_one_response() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        async def post(**fields: Any) -> Any:
            headers = {"idempotency-key": "k"}
            return await e.post("/v1/responses", {**ASK, **fields}, headers=headers)

        first = asyncio.ensure_future(post())
        await e.gate.until(lambda: len(e.gate.bodies) == 2)
        succeed(store, only_job(store).job_id)
        again = await post()
        assert again.json() == (await first).json()
        assert again.json()["output"][0]["content"][0]["text"] == TEXT
        assert (await post(input="other")).status_code == 409
        assert not [b for b in e.gate.bodies if isinstance(b, Infer)]

    play(scene)


def test_who_leaves_a_live_one_leaves_nothing() -> None:
    async def slow(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, *tokens("a"))

    async def scene(e: Edge, store: FakeStore) -> None:
        reading = asyncio.ensure_future(e.post("/v1/responses", ASK))
        await e.gate.until(lambda: bool(e.gate.calls))
        reading.cancel()
        await e.gate.until(lambda: bool(e.gate.cancels))
        assert not store.jobs

    play(scene, {Infer: slow})


def test_a_job_that_is_no_response_is_not_shown_as_one() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        job = store.add_job(ADMIN, JobSpec("drill"))
        path = f"/v1/responses/{job.job_id.replace('job_', 'resp_')}"
        assert (await e.client.get(path)).status_code == 404
        assert (
            await e.client.get(path, headers={"authorization": f"Bearer {SECRET}x"})
        ).status_code == 401

    play(scene)
