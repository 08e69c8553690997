"""/v1/responses over a store in memory: live, stored, continued."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from llmos.abi.events import Failed
from llmos.abi.inference import ChatPrompt, Usage
from llmos.abi.jobs import INFER, JobRecord, JobState
from llmos.abi.program import Answer
from llmos.abi.syscall import Infer, Syscall
from llmos.abi.syscall_jobs import RecordJob
from llmos.errors import DiskFull, EngineFailed, UnsupportedParameter
from llmos.shapes.answers import ErrorAnswer
from llmos.shapes.response_object import ResponseObject
from tests.unit.api.fake_gate import (
    CREATED_NS,
    USER_SECRET,
    Edge,
    FakeGate,
    echo,
    edge,
    finished,
    tokens,
)
from tests.unit.api.fake_store import FakeStore

ASK = {"model": "echo", "input": "你好 👋"}
STRANGER = {"authorization": f"Bearer {USER_SECRET}"}
TEXT = "Hi 你好"


@contextlib.asynccontextmanager
async def responding(scripts: Any = None, **limits: Any) -> AsyncIterator[tuple[Edge, FakeStore]]:
    store = FakeStore()
    async with edge({**store.scripts, **(scripts or {})}, **limits) as e:
        yield e, store


def play(
    scene: Callable[[Edge, FakeStore], Awaitable[None]], scripts: Any = None, **limits: Any
) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), responding(scripts, **limits) as (e, store):
            await scene(e, store)

    asyncio.run(run())


async def ask(e: Edge, **fields: Any) -> dict[str, Any]:
    response = await e.post("/v1/responses", {**ASK, **fields})
    assert response.status_code == 200, response.text
    made: dict[str, Any] = ResponseObject.model_validate_json(response.content).model_dump()
    return made


def events_of(text: str) -> list[dict[str, Any]]:
    """The data of each event; its name is its type."""
    found = []
    for block in text.strip().split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")


def succeed(store: FakeStore, job_id: str, text: str = TEXT, **fields: Any) -> JobRecord:
    usage = Usage(3, 2, 0)
    answer = Answer("req_1", "echo:1", text, [1, 2], "stop", None, usage, CREATED_NS, 1)
    return store.change(
        job_id, state=JobState.SUCCEEDED, attempt=1, ended_ns=CREATED_NS + 7 * 10**9,
        outputs={"answer": msgspec.to_builtins(answer)}, **fields,
    )  # fmt: skip


def only_job(store: FakeStore) -> JobRecord:
    (job,) = store.jobs.values()
    return job


# live


def test_an_answer_is_stored_before_it_is_given() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await ask(e, instructions="Be brief.", metadata={"a": "ä"}, max_output_tokens=9)
        assert made["output"][0]["content"][0]["text"] == TEXT
        assert (made["status"], made["metadata"], made["store"]) == ("completed", {"a": "ä"}, True)
        assert made["usage"]["total_tokens"] == 5
        infer, record = e.gate.bodies
        assert isinstance(infer, Infer)
        assert infer.prompt == ChatPrompt(
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": ASK["input"]},
            ]
        )
        assert (infer.route, infer.sampling.max_tokens) == ("responses", 9)
        assert isinstance(record, RecordJob)
        assert record.spec.program == INFER
        again = await e.client.get(f"/v1/responses/{made['id']}")
        assert again.json() == made

    play(scene)


def test_what_is_not_stored_is_not_there() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await ask(e, store=False)
        assert made["store"] is False
        assert not store.jobs
        response = await e.client.get(f"/v1/responses/{made['id']}")
        assert (response.status_code, response.json()["error"]["param"]) == (404, "response_id")

    play(scene)


def test_the_events_of_a_stream() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        response = await e.post("/v1/responses", {**ASK, "stream": True})
        events = events_of(response.text)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert [event["type"].removeprefix("response.") for event in events] == [
            "created", "in_progress", "output_item.added", "content_part.added",
            "output_text.delta", "output_text.delta", "output_text.done", "content_part.done",
            "output_item.done", "completed",
        ]  # fmt: skip
        assert text_of(events) == events[-4]["text"] == TEXT
        assert {event["item_id"] for event in events if "item_id" in event} == {
            events[-1]["response"]["output"][0]["id"]
        }
        assert events[0]["response"]["id"] == events[-1]["response"]["id"]
        shown = await e.client.get(f"/v1/responses/{events[-1]['response']['id']}")
        assert shown.json() == events[-1]["response"]

    play(scene)


def test_a_cut_answer_is_incomplete() -> None:
    async def cut(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, *tokens("a\u2028b"), finished(1, "length"))  # type: ignore[arg-type]

    async def scene(e: Edge, store: FakeStore) -> None:
        response = await e.post("/v1/responses", {**ASK, "stream": True, "max_output_tokens": 1})
        assert "\u2028" not in response.text
        last = events_of(response.text)[-1]
        assert last["type"] == "response.incomplete"
        assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
        assert last["response"]["output"][0]["status"] == "incomplete"
        assert last["response"]["output"][0]["content"][0]["text"] == "a\u2028b"

    play(scene, {Infer: cut})


async def _full(gate: FakeGate, call: Syscall) -> None:
    raise DiskFull("no space")


async def _fails(gate: FakeGate, call: Syscall) -> None:
    gate.accept(call)
    gate.emit(call, *tokens("a"), Failed("r", EngineFailed("broken").to_info()))


@pytest.mark.parametrize(
    ("scripts", "code"), [({RecordJob: _full}, "disk_full"), ({Infer: _fails}, "engine_failed")]
)
def test_an_answer_that_cannot_be_kept_or_made_is_an_error(scripts: Any, code: str) -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        whole = await e.post("/v1/responses", ASK)
        assert whole.json()["error"]["code"] == code
        last = events_of((await e.post("/v1/responses", {**ASK, "stream": True})).text)[-1]
        assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
        assert last["response"]["error"]["type"] == code
        assert not store.jobs

    play(scene, scripts)


# conversations


def test_a_response_goes_on_from_another() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        first = await ask(e, instructions="Only the first.")
        second = await ask(e, input="and?", previous_response_id=first["id"])
        assert second["previous_response_id"] == first["id"]
        assert (await e.client.delete(f"/v1/responses/{first['id']}")).json()["deleted"] is True
        await ask(
            e, input=[{"role": "developer", "content": "x"}], previous_response_id=second["id"]
        )
        prompts = [b.prompt for b in e.gate.bodies if isinstance(b, Infer)]
        assert prompts[-1] == ChatPrompt(
            [
                {"role": "user", "content": ASK["input"]},
                {"role": "assistant", "content": TEXT},
                {"role": "user", "content": "and?"},
                {"role": "assistant", "content": TEXT},
                {"role": "system", "content": "x"},
            ]
        )

    play(scene)


def test_what_went_in_can_be_listed() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        first = await ask(e)
        made = await ask(
            e,
            input=[{"role": "user", "content": str(i)} for i in range(4)],
            previous_response_id=first["id"],
        )
        path = f"/v1/responses/{made['id']}/input_items"
        listed = (await e.client.get(path)).json()
        assert [i["content"][0]["text"] for i in listed["data"]] == [
            "3",
            "2",
            "1",
            "0",
            TEXT,
            ASK["input"],
        ]
        assert listed["data"][4]["id"] == first["output"][0]["id"]
        page = (await e.client.get(path + "?order=asc&limit=2")).json()
        assert page["has_more"]
        rest = (await e.client.get(path + f"?order=asc&after={page['last_id']}")).json()
        assert [*page["data"], *rest["data"]] == listed["data"][::-1]
        assert (await e.client.get(path + "?after=msg_x")).status_code == 404
        assert (
            await e.client.get(path + "?include[]=message.output_text.words")
        ).status_code == 400
        assert (
            await e.client.get(path + "?include[]=reasoning.encrypted_content")
        ).status_code == 200

    play(scene)


def test_another_tenants_response_is_not_there() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        made = await ask(e)
        path = f"/v1/responses/{made['id']}"
        for method, at in (
            ("GET", path),
            ("DELETE", path),
            ("POST", path + "/cancel"),
            ("GET", path + "/input_items"),
        ):
            assert (await e.client.request(method, at, headers=STRANGER)).status_code == 404
        response = await e.post(
            "/v1/responses", {**ASK, "previous_response_id": made["id"]}, headers=STRANGER
        )
        assert (response.status_code, response.json()["error"]["param"]) == (
            404,
            "previous_response_id",
        )
        for name in ("resp_1", made["id"].replace("resp_", "batch_"), "resp_" + "0" * 32):
            response = await e.post("/v1/responses", {**ASK, "previous_response_id": name})
            assert response.status_code == 404, name

    play(scene)


def test_a_conversation_is_bounded() -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        first = await ask(e, input=[{"role": "user", "content": "x"}] * 3)
        response = await e.post("/v1/responses", {**ASK, "previous_response_id": first["id"]})
        assert (response.status_code, response.json()["error"]["param"]) == (
            400,
            "previous_response_id",
        )

    play(scene, max_messages=4)


URL = "data:image/png;base64," + base64.b64encode(b"pixels").decode()


def _image_in(fields: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"input": [{"role": role, "content": [{"type": "input_image", **fields}]}]}


@pytest.mark.parametrize("stream", [False, True])
def test_an_image_is_asked_about_and_kept(stream: bool) -> None:
    """A file of the request for the model, its URL in what is stored, and so in what follows."""

    async def scene(e: Edge, store: FakeStore) -> None:
        words = {"type": "input_text", "text": "what?"}
        content = [words, {"type": "input_image", "image_url": URL, "detail": "low"}]
        said = [{"role": "user", "content": content}]
        first = {"model": "echo", "input": said, "instructions": "see", "stream": stream}
        assert (await e.post("/v1/responses", first)).status_code == 200
        (infer,) = [body for body in e.gate.bodies if isinstance(body, Infer)]
        assert isinstance(infer.prompt, ChatPrompt)
        image = {"type": "image", "blob": 0, "media_type": "image/png", "detail": "low"}
        seen = [{"type": "text", "text": "what?"}, image | {"where": "input.0.content.1"}]
        assert infer.prompt.messages[1] == {"role": "user", "content": seen}
        assert e.sink.kept[infer.prompt.blobs[0].digest] == b"pixels"
        assert not e.sink.files
        job = only_job(store)
        assert job.spec.inputs["items"][0]["content"] == content
        response_id = job.job_id.replace("job_", "resp_")
        await ask(e, input="and?", previous_response_id=response_id)
        again = [body for body in e.gate.bodies if isinstance(body, Infer)][-1]
        assert isinstance(again.prompt, ChatPrompt)
        (kept,) = [m["content"] for m in again.prompt.messages if isinstance(m["content"], list)]
        assert kept[1] == image | {"where": "previous_response_id"}

    play(scene)


def test_images_of_earlier_turns_are_counted_by_their_name() -> None:
    """Those of this body by their own, where it has too many by itself."""
    part = {"type": "input_image", "image_url": URL}

    async def scene(e: Edge, store: FakeStore) -> None:
        first = await ask(e, input=[{"role": "user", "content": [part] * 2}])
        for num_new, name in ((1, "previous_response_id"), (3, "input.0.content.2")):
            said = [{"role": "user", "content": [part] * num_new}]
            more = {"input": said, "previous_response_id": first["id"]}
            error = (await e.post("/v1/responses", {**ASK, **more})).json()["error"]
            assert (error["code"], error["param"]) == ("invalid_request", name)

    play(scene, max_images=2)


JSON_OBJECT = {"format": {"type": "json_object"}}
LIKELIEST = {"include": ["message.output_text.logprobs"]}
TURNS = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("logprobs", {"top_logprobs": 2, **LIKELIEST}, "top_logprobs"),
    ("logprobs", LIKELIEST, "include"),
    ("grammar", {"text": JSON_OBJECT}, "text.format"),
    ("grammar", {"llmos": {"regex": "a+"}}, "llmos.regex"),
    ("max_tokens", {"max_output_tokens": 3}, "max_output_tokens"),
    ("prompt", {}, "input"),
    ("messages", {}, "input"),
    ("messages.0.content", {}, "input"),
    ("messages.0.content", {"instructions": "x"}, "instructions"),
    ("messages.2.content", {"instructions": "x", "input": TURNS}, "input.1.content"),
    ("messages.1.content.2", {"input": TURNS}, "input.1.content.2"),
    ("messages.9", {"input": TURNS}, "input"),
    ("model", {}, "model"),
]


@pytest.mark.parametrize(("inside", "fields", "param"), REFUSED)
def test_a_refusal_names_fields_of_the_body(
    inside: str, fields: dict[str, Any], param: str
) -> None:
    async def refuses(gate: FakeGate, call: Syscall) -> None:
        raise UnsupportedParameter("no", param=inside)

    async def scene(e: Edge, store: FakeStore) -> None:
        for stream in (False, True):
            answer = await e.post("/v1/responses", {**ASK, **fields, "stream": stream})
            assert answer.json()["error"]["param"] == param

    play(scene, {Infer: refuses})


def test_what_was_said_before_is_named_as_such() -> None:
    async def refuses(gate: FakeGate, call: Syscall) -> None:
        assert isinstance(call.body, Infer)
        assert isinstance(call.body.prompt, ChatPrompt)
        if len(call.body.prompt.messages) == 1:
            await echo(gate, call)
        raise UnsupportedParameter("no", param="messages.0.content")

    async def scene(e: Edge, store: FakeStore) -> None:
        first = await ask(e, input="a")
        again = {**ASK, "input": "b", "previous_response_id": first["id"]}
        error = (await e.post("/v1/responses", again)).json()["error"]
        assert error["param"] == "previous_response_id"

    play(scene, {Infer: refuses})


BAD: list[tuple[dict[str, Any], str]] = [
    ({"input": []}, "input"),
    ({"input": 7}, "input"),
    ({"input": None}, "input"),
    ({"input": ["x"]}, "input.0"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
    ({"input": [{"role": "user"}]}, "input.0.content"),
    ({"input": [{"role": "user", "content": []}]}, "input.0.content"),
    ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.content.0.type"),
    (_image_in({}), "input.0.content.0.image_url"),
    (_image_in({"image_url": {"url": URL}}), "input.0.content.0.image_url"),
    (_image_in({"image_url": "data:text/plain;base64,AA"}), "input.0.content.0.image_url"),
    (_image_in({"image_url": URL, "detail": "most"}), "input.0.content.0.detail"),
    (_image_in({"file_id": "file-1"}), "input.0.content.0.file_id"),
    (_image_in({"image_url": URL, "size": 1}), "input.0.content.0.size"),
    (_image_in({"image_url": URL}, role="system"), "input.0.content.0"),
    (_image_in({"image_url": URL}) | {"background": True}, "background"),
    (_image_in({"image_url": URL}) | {"llmos": {"resume_s": 5}}, "llmos.resume_s"),
    (_image_in({"image_url": URL + "A" * (2 << 20)}), "input"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x", "y": 1}]}]},
        "input.0.content.0.y",
    ),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input.0.arguments"),
    ({"input": [{"type": "computer_call", "call_id": "c"}]}, "input.0.type"),
    ({"input": [{"type": [], "call_id": "c"}]}, "input.0.type"),
    ({"input": [{"type": {}, "call_id": "c"}]}, "input.0.type"),
    ({"input": [{"role": "user", "content": [{"type": []}]}]}, "input.0.content.0.type"),
    ({"input": [{"role": "user", "content": "x", "name": "n"}]}, "input.0.name"),
    ({"input": [{"role": "user", "content": "x", "id": 7}]}, "input.0.id"),
    ({"model": ""}, "model"),
    ({"max_tokens": 5}, "max_tokens"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"background": True, "store": False}, "store"),
    ({"metadata": {"k": "x" * 513}}, "metadata.k"),
    ({"metadata": {"x" * 65: "v"}}, "metadata." + "x" * 65 + ".[key]"),
    ({"metadata": {str(i): "v" for i in range(17)}}, "metadata"),
    ({"metadata": {"k": 1}}, "metadata.k"),
    ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"truncation": "auto"}, "truncation"),
    ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
    ({"reasoning": "high"}, "reasoning"),
    ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
    ({"text": {"colour": "red"}}, "text.colour"),
    ({"include": ["message.output_text.words"]}, "include.0"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "x"}}, "prompt"),
    ({"instructionss": "x"}, "instructionss"),
    ({"llmos": {"clas": "batch"}}, "llmos.clas"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), BAD, ids=[str(sorted(b)) + p for b, p in BAD])
def test_a_bad_body_names_its_field(fields: dict[str, Any], param: str) -> None:
    async def scene(e: Edge, store: FakeStore) -> None:
        response = await e.post("/v1/responses", {**ASK, **fields})
        assert response.status_code == 400, response.text
        assert ErrorAnswer.model_validate_json(response.content).error.param == param
        assert not e.gate.calls

    play(scene)


def test_what_changes_nothing_is_accepted() -> None:
    neutral = {
        "tools": [], "tool_choice": "auto", "truncation": "disabled", "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "top_logprobs": 0,
        "reasoning": {"effort": None, "summary": "auto"}, "user": "u", "max_tool_calls": 3,
        "include": ["reasoning.encrypted_content"], "stream_options": {"include_obfuscation": True},
        "background_options": {"completion_window": "soonest"}, "prompt_cache_key": "k",
    }  # fmt: skip

    async def scene(e: Edge, store: FakeStore) -> None:
        await ask(e, **neutral)

    play(scene)
