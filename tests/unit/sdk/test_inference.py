"""Chat and completions: bodies, whole answers, streams, and streams that break."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.abi.inference import Usage
from llmos.errors import (
    EngineFailed,
    InvalidRequest,
    ProtocolViolation,
    ServerUnreachable,
    WorkerLost,
)
from llmos.sdk import Chunk
from llmos.sdk.inference import ChunkParser
from tests.unit.sdk.fake import Pieces, Server, refusal, sse

CHAT = "POST /v1/chat/completions"
TEXT = "POST /v1/completions"
USAGE = {
    "prompt_tokens": 4,
    "completion_tokens": 2,
    "total_tokens": 6,
    "prompt_tokens_details": {"cached_tokens": 1},
}
MESSAGES = [{"role": "user", "content": "你好"}]


def delta(text: str | None = None, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text} if text is not None else {}}
    return {"id": "c", "model": "m", "choices": [{**choice, "finish_reason": finish}]}


WHOLE = sse(
    {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    delta("Guten "),
    delta("Tag 🙂"),
    delta(finish="stop"),
    {"id": "c", "choices": [], "usage": USAGE},
    "[DONE]",
)
EXPECTED = [
    Chunk("Guten "),
    Chunk("Tag 🙂"),
    Chunk(finish_reason="stop"),
    Chunk(usage=Usage(4, 2, 1)),
]


def test_a_whole_chat_answer() -> None:
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "m:1",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
        ],
        "usage": USAGE,
    }
    server = Server({CHAT: httpx.Response(200, json=answer)})
    with server.client() as client:
        found = client.chat("m", MESSAGES, temperature=0, llmos={"nice": 3})
    assert server.body() == {
        "model": "m",
        "messages": MESSAGES,
        "temperature": 0,
        "llmos": {"nice": 3},
    }
    assert (found.text, found.finish_reason, found.usage) == ("Hi", "stop", Usage(4, 2, 1))
    assert (found.id, found.model, found.created_s) == ("chatcmpl-1", "m:1", 17)


@pytest.mark.parametrize("prompt", ["Once", [1, 2, 3]])
def test_a_completion_of_text_or_token_ids(prompt: Any) -> None:
    answer = {"choices": [{"index": 0, "text": " upon", "finish_reason": "length"}]}
    server = Server({TEXT: httpx.Response(200, json=answer)})
    with server.client() as client:
        assert client.complete("m", prompt, max_tokens=2).text == " upon"
    assert server.body() == {"model": "m", "prompt": prompt, "max_tokens": 2}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=20))
def test_a_stream_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    cuts = sorted(cuts)
    pieces = [WHOLE[a:b] for a, b in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True)]
    server = Server({CHAT: lambda _: httpx.Response(200, stream=Pieces(*pieces))})
    with server.client() as client, client.chat("m", MESSAGES, stream=True) as stream:
        assert list(stream) == EXPECTED
    assert server.body()["stream"] is True
    assert server.body()["stream_options"] == {"include_usage": True}


def test_token_ids_and_the_account_of_the_run_are_kept() -> None:
    """Tokens that complete no character come with ids and without text."""
    first = {"index": 0, "text": "", "finish_reason": None, "token_ids": [7]}
    last = {"index": 0, "text": "好", "finish_reason": "length", "token_ids": [8, 9]}
    account = {"deterministic": True, "request_id": "req_1"}
    body = sse({"choices": [first]}, {"choices": [last], "llmos": account}, "[DONE]")
    server = Server({TEXT: httpx.Response(200, content=body)})
    with server.client() as client:
        chunks = list(client.complete("m", [1], stream=True, return_token_ids=True))
    assert chunks == [
        Chunk(token_ids=[7]),
        Chunk("好", "length", token_ids=[8, 9], llmos=account),
    ]


def test_the_asynchronous_stream_is_the_same() -> None:
    async def ask() -> list[Chunk]:
        server = Server({TEXT: httpx.Response(200, stream=Pieces(WHOLE[:99], WHOLE[99:]))})
        async with (
            server.async_client() as client,
            await client.complete("m", "x", stream=True) as stream,
        ):
            return [chunk async for chunk in stream]

    assert asyncio.run(ask()) == EXPECTED


def test_a_refused_stream_raises_before_it_begins() -> None:
    server = Server({CHAT: refusal(400, "unsupported_parameter", param="n")})
    with server.client() as client, pytest.raises(InvalidRequest) as caught:
        client.chat("m", MESSAGES, stream=True, n=5)
    assert caught.value.param == "n"


def test_a_failure_in_mid_stream_comes_after_the_text_before_it() -> None:
    error = {"error": {"message": "gone", "type": "server_error", "code": "worker_lost"}}
    body = Pieces(sse(delta("Gu"), delta("ten"), error))
    server = Server({CHAT: httpx.Response(200, stream=body)})
    texts = []
    with server.client() as client, pytest.raises(WorkerLost, match="gone"):
        texts.extend(chunk.text for chunk in client.chat("m", MESSAGES, stream=True))
    assert texts == ["Gu", "ten"]
    assert body.is_closed


@pytest.mark.parametrize(
    "ending", [[], [httpx.ReadError("reset")], [httpx.RemoteProtocolError("cut")]]
)
def test_a_stream_without_its_end_is_an_error(ending: list[Exception]) -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Pieces(sse(delta("Gu")), *ending))

    server = Server({CHAT: broken})
    with server.client() as client, pytest.raises(ServerUnreachable, match="before the answer"):
        list(client.chat("m", MESSAGES, stream=True))

    async def ask() -> None:
        async with server.async_client() as client:
            async for _ in await client.chat("m", MESSAGES, stream=True):
                pass

    with pytest.raises(ServerUnreachable, match="before the answer"):
        asyncio.run(ask())


def test_leaving_a_stream_ends_the_request() -> None:
    body = Pieces(*[sse(delta(str(i))) for i in range(100)])
    server = Server({CHAT: httpx.Response(200, stream=body)})
    with server.client() as client:
        with client.chat("m", MESSAGES, stream=True) as stream:
            assert next(stream).text == "0"
        assert body.is_closed
        assert list(stream) == []
        stream.close()
    assert body.num_sent == 1


def test_leaving_an_asynchronous_stream_ends_the_request() -> None:
    async def ask() -> Pieces:
        body = Pieces(*[sse(delta(str(i))) for i in range(100)])
        server = Server({CHAT: httpx.Response(200, stream=body)})
        async with server.async_client() as client:
            async with await client.chat("m", MESSAGES, stream=True) as stream:
                assert (await anext(stream)).text == "0"
            assert body.is_closed
            assert [chunk async for chunk in stream] == []
        return body

    assert asyncio.run(ask()).num_sent == 1


@pytest.mark.parametrize("data", ["{", "[]", '{"choices": 3}', '{"choices": [{"index": "a"}]}'])
def test_an_event_that_is_no_chunk_is_a_protocol_violation(data: str) -> None:
    with pytest.raises(ProtocolViolation):
        list(ChunkParser(1000).feed(sse(data)))


def test_an_error_without_a_code_is_still_an_error() -> None:
    with pytest.raises(Exception, match="broke") as caught:
        list(ChunkParser(1000).feed(sse({"error": {"message": "it broke"}})))
    assert not isinstance(caught.value, EngineFailed)


@pytest.mark.parametrize(
    "sampling",
    [{"temperature": math.nan}, {"top_p": math.inf}, {"stop": {1, 2}}, {"user": "\ud83d"}],
)
def test_what_json_cannot_carry_is_refused_here(sampling: dict[str, Any]) -> None:
    server = Server({})
    with server.client() as client, pytest.raises(InvalidRequest, match="as JSON"):
        client.chat("m", MESSAGES, **sampling)
    assert server.requests == []
