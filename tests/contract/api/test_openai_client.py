"""The official OpenAI client against the real server over a scripted gate."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import openai
import pytest

from llmos.abi.events import Failed
from llmos.abi.syscall import Infer, Syscall
from llmos.errors import (
    ContextLengthExceeded,
    EngineFailed,
    LLMOSError,
    ModelNotFound,
    PermissionDenied,
    QueueFull,
    WorkerLost,
)
from tests.contract.api.test_server import Live, live, run
from tests.unit.api.fake_gate import SECRET, FakeGate, Script, tokens

Scene = Callable[[openai.AsyncOpenAI, Live], Coroutine[Any, Any, None]]
HI: list[Any] = [{"role": "user", "content": "hi"}]


def _with_client(
    scene: Scene, scripts: dict[type, Script] | None = None, key: str = SECRET
) -> None:
    async def whole() -> None:
        async with (
            live(scripts) as s,
            openai.AsyncOpenAI(base_url=f"{s.url}/v1", api_key=key, max_retries=0) as client,
        ):
            await scene(client, s)

    run(whole)


def test_chat_completions_and_models() -> None:
    async def scene(client: openai.AsyncOpenAI, s: Live) -> None:
        chat = await client.chat.completions.create(model="echo", messages=HI, max_tokens=5)
        assert chat.choices[0].message.content == "Hi 你好"
        assert chat.usage is not None
        assert chat.usage.total_tokens == 5
        text = await client.completions.create(model="echo", prompt=[1, 2], max_tokens=5)
        assert text.choices[0].text == "Hi 你好"
        assert [m.id async for m in client.models.list()] == ["echo", "pilot", "pilot:1"]
        assert (await client.models.retrieve("echo")).owned_by == "llmos"

    _with_client(scene)


def test_streams() -> None:
    async def scene(client: openai.AsyncOpenAI, s: Live) -> None:
        stream = await client.chat.completions.create(
            model="echo", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [c async for c in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hi 你好"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 5
        texts = await client.completions.create(model="echo", prompt=["a", "b"], stream=True)
        parts = [(c.choices[0].index, c.choices[0].text) async for c in texts]
        assert "".join(t for i, t in parts if i == 1) == "Hi 你好"

    _with_client(scene)


def test_the_streaming_helper_accumulates_a_whole_completion() -> None:
    async def scene(client: openai.AsyncOpenAI, s: Live) -> None:
        async with client.chat.completions.stream(model="echo", messages=HI) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == "Hi 你好"
        assert final.choices[0].finish_reason == "stop"

    _with_client(scene)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ContextLengthExceeded("too long", param="messages"), openai.BadRequestError),
        (PermissionDenied("no"), openai.PermissionDeniedError),
        (ModelNotFound("none"), openai.NotFoundError),
        (QueueFull("full", retry_after_s=1), openai.RateLimitError),
        (WorkerLost("gone"), openai.InternalServerError),
        (EngineFailed("broke"), openai.InternalServerError),
    ],
    ids=lambda v: getattr(v, "code", None),
)
def test_its_error_classes(error: LLMOSError, expected: type[openai.APIStatusError]) -> None:
    async def refuse(gate: FakeGate, call: Syscall) -> None:
        raise error

    async def scene(client: openai.AsyncOpenAI, s: Live) -> None:
        with pytest.raises(expected) as caught:
            await client.chat.completions.create(model="echo", messages=HI)
        assert caught.value.code == error.code
        assert caught.value.param == error.param
        assert str(caught.value.request_id).startswith("req_")

    _with_client(scene, {Infer: refuse})


def test_a_wrong_key_is_its_authentication_error() -> None:
    async def scene(client: openai.AsyncOpenAI, s: Live) -> None:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()

    _with_client(scene, key="wrong")


def test_an_error_in_mid_stream_raises_in_its_iteration() -> None:
    async def breaks(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, *tokens("a"), Failed("r", WorkerLost("killed").to_info()))

    async def scene(client: openai.AsyncOpenAI, s: Live) -> None:
        stream = await client.chat.completions.create(model="echo", messages=HI, stream=True)
        chunks = aiter(stream)
        assert (await anext(chunks)).choices[0].delta.role == "assistant"
        assert (await anext(chunks)).choices[0].delta.content == "a"
        with pytest.raises(openai.APIError, match="killed"):
            await anext(chunks)

    _with_client(scene, {Infer: breaks})


def test_closing_its_stream_frees_the_request() -> None:
    async def begins(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, *tokens("a"))

    async def scene(client: openai.AsyncOpenAI, s: Live) -> None:
        stream = await client.chat.completions.create(model="echo", messages=HI, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await client.close()
        await s.gate.until(lambda: len(s.gate.cancels) == 1, timeout_s=1)

    _with_client(scene, {Infer: begins})
