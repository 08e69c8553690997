"""A chat about an image over a scripted gate: whole, streamed, and what goes wrong."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import msgspec
import pytest

from llmos.abi.events import Failed, Finished, FinishReason, ItemOutput, Outputs, Tokens
from llmos.abi.inference import ChatPrompt, ItemsPrompt, Usage
from llmos.abi.syscall import Infer, Model, ShowModel, Syscall
from llmos.errors import EngineFailed, InvalidRequest, PermissionDenied
from llmos.shapes.answers import ChatAnswer, ChatChunk
from tests.unit.api.fake_gate import Edge, FakeGate, edge, events_of, model

PIXELS = b"pixels"
URL = "data:image/png;base64," + base64.b64encode(PIXELS).decode()
CONTENT = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": URL}}]
MESSAGES = [{"role": "user", "content": CONTENT}]
SAID = {"text": "a cat", "finish_reason": "length", "num_tokens": 1}
USAGE = Usage(5, 1)


async def _sees(gate: FakeGate, call: Syscall) -> None:
    assert isinstance(call.body, Infer)
    if isinstance(call.body.prompt, ChatPrompt):
        kinds = ["embeddings" if call.body.model == "blind" else "image-to-text"]
        raise InvalidRequest("not for chats", param="model", details={"kinds": kinds})
    gate.accept(call)
    if call.body.model == "broken":
        gate.emit(call, Failed("r", EngineFailed("it broke").to_info()))
        return
    output = ItemOutput(0, SAID)
    if call.body.model == "corrupt":
        output = ItemOutput(0, error=InvalidRequest("it is no image").to_info())
    gate.emit(call, Outputs("r", [output]))
    gate.emit(call, Finished("r", FinishReason.STOP, USAGE))


def _ask(**fields: Any) -> tuple[httpx.Response, Edge]:
    async def scene() -> tuple[httpx.Response, Edge]:
        async with edge({Infer: _sees}) as e:
            return await e.chat(messages=MESSAGES, **fields), e

    return asyncio.run(scene())


def test_a_whole_answer() -> None:
    response, e = _ask(max_tokens=3)
    answer = ChatAnswer.model_validate_json(response.content)
    assert answer.choices[0].message.content == "a cat"
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 1)
    _, asked = e.gate.bodies  # first as a chat
    assert isinstance(asked, Infer)
    assert isinstance(asked.prompt, ItemsPrompt)
    assert asked.prompt.items == [{"text": "a", "blob": 0}]
    assert asked.prompt.params == {"max_new_tokens": 3}
    (blob,) = asked.prompt.blobs
    assert e.sink.kept[blob.digest] == PIXELS
    assert not e.sink.files  # it is gone with the request


def test_a_stream_ends_once() -> None:
    response, _ = _ask(stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = list(events_of(response.text))
    assert events[-1] == "[DONE]"
    chunks = [ChatChunk.model_validate(json.loads(event)) for event in events[:-1]]
    said = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(said) == "a cat"
    ends = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [end for end in ends if end] == ["length"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "status", "code", "param"),
    [
        ("blind", 400, "invalid_request", "model"),
        ("corrupt", 400, "invalid_request", "messages.0.content.1"),
        ("broken", 502, "engine_failed", None),
    ],
)
def test_errors_are_the_answers_status(
    model: str, status: int, code: str, param: str | None, stream: bool
) -> None:
    response, e = _ask(model=model, stream=stream)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert not e.sink.files


def test_an_image_over_the_limit_or_in_no_base64() -> None:
    async def scene() -> None:
        async with edge({Infer: _sees}, max_media_bytes=1024) as e:
            url = "data:image/png;base64," + base64.b64encode(bytes(2000)).decode()
            large = {"type": "image_url", "image_url": {"url": url}}
            content = [CONTENT[0], large]
            response = await e.chat(messages=[{"role": "user", "content": content}])
            assert response.status_code == 413
            assert response.json()["error"]["param"] == "messages.0.content.1.image_url.url"
            image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,?!"}}
            response = await e.chat(messages=[{"role": "user", "content": [image]}])
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (400, "invalid_request")
            assert error["param"] == "messages.0.content.0.image_url.url"

    asyncio.run(scene())


def test_a_stream_that_waits_shows_that_it_lives() -> None:
    """From then on an error is its last event."""

    async def slow(gate: FakeGate, call: Syscall) -> None:
        if isinstance(call.body, Infer) and isinstance(call.body.prompt, ChatPrompt):
            await _sees(gate, call)
        gate.accept(call)
        waited = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, waited.set)
        await waited.wait()
        error = InvalidRequest("it is no image").to_info()
        gate.emit(call, Outputs("r", [ItemOutput(0, error=error)]))
        gate.emit(call, Finished("r", FinishReason.STOP, USAGE))

    async def scene() -> None:
        async with edge({Infer: slow}, keepalive_comment_s=0.02) as e:
            response = await e.chat(messages=MESSAGES, stream=True)
            assert response.status_code == 200
            assert response.text.startswith(": keep-alive")
            (event,) = events_of(response.text)  # the comments are none
            assert json.loads(event)["error"]["param"] == "messages.0.content.1"

    asyncio.run(scene())


async def _chats(gate: FakeGate, call: Syscall) -> None:
    gate.accept(call)
    gate.emit(call, Tokens("r", [1], "a cat"))
    gate.emit(call, Finished("r", FinishReason.STOP, USAGE))


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_chats_is_asked_with_files(stream: bool) -> None:
    far = {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}
    near = {"type": "image_url", "image_url": {"url": URL, "detail": "high"}}

    async def scene() -> None:
        async with edge({Infer: _chats}) as e:
            said = [CONTENT[0], near, far]
            messages = [{"role": "system", "content": "b"}, {"role": "user", "content": said}]
            response = await e.chat(messages=messages, n=2, stream=stream)
            assert response.status_code == 200
            assert "a cat" in response.text
            first, second = e.gate.bodies
            assert isinstance(first, Infer)
            assert isinstance(second, Infer)
            assert first.prompt == second.prompt
            assert isinstance(first.prompt, ChatPrompt)
            where = "messages.1.content"
            image = {"type": "image", "blob": 0, "media_type": "image/png", "detail": "high"}
            assert first.prompt.messages[1]["content"] == [
                CONTENT[0],
                image | {"where": f"{where}.1"},
                far | {"where": f"{where}.2"},
            ]
            (blob,) = first.prompt.blobs
            assert e.sink.kept[blob.digest] == PIXELS
            assert not e.sink.files

    asyncio.run(scene())


def test_too_many_images() -> None:
    async def scene() -> None:
        async with edge({Infer: _chats}, max_images=2) as e:
            messages = [MESSAGES[0], {"role": "user", "content": [CONTENT[1]] * 2}]
            response = await e.chat(messages=messages)
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, "messages.1.content.1")
            assert not [body for body in e.gate.bodies if isinstance(body, Infer)]

    asyncio.run(scene())


async def _show_captioner(gate: FakeGate, call: Syscall) -> None:
    gate.reply(call, Model(msgspec.structs.replace(model("blip"), kinds=["image-to-text"])))


def test_earlier_images_are_no_concern_of_a_captioner() -> None:
    """Neither counted nor stored: it reads the last message."""
    earlier = {"role": "user", "content": [CONTENT[1]] * 3}
    messages = [earlier, {"role": "assistant", "content": "a cat"}, *MESSAGES]

    async def scene() -> None:
        async with edge({Infer: _sees, ShowModel: _show_captioner}, max_images=2) as e:
            response = await e.chat(messages=messages)
            assert response.status_code == 200, response.text
            assert response.json()["choices"][0]["message"]["content"] == "a cat"
            asked = [body for body in e.gate.bodies if isinstance(body, Infer)]
            assert [len(body.prompt.blobs) for body in asked] == [1, 1]  # type: ignore[union-attr]
            assert {body.model for body in asked} == {"blip:1"}
            assert len(e.sink.kept) == 1
            again = await e.chat(messages=[*messages, {"role": "user", "content": "and now?"}])
            error = again.json()["error"]
            assert (again.status_code, error["param"]) == (400, "messages.3.content")
        async with edge({Infer: _sees, ShowModel: _hidden}, max_images=4) as e:
            response = await e.chat(messages=messages)
            assert response.json()["choices"][0]["message"]["content"] == "a cat"

    asyncio.run(scene())


async def _hidden(gate: FakeGate, call: Syscall) -> None:
    raise PermissionDenied("it is not for you to see")


def test_no_stream_of_it_is_gone_on_with() -> None:
    async def scene() -> None:
        async with edge({Infer: _sees}) as e:
            kept = await e.chat(messages=MESSAGES, stream=True, llmos={"resume_s": 5})
            assert kept.json()["error"]["param"] == "llmos.resume_s"
            body = {"model": "echo", "messages": MESSAGES, "stream": True}
            headers = {"last-event-id": f"req_{1:032x}:1"}
            response = await e.post("/v1/chat/completions", body, headers=headers)
            assert response.json()["error"]["code"] == "unsupported_parameter"

    asyncio.run(scene())
