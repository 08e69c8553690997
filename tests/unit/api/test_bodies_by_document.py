"""What the edge accepts, its document allows: every client of these tests is held to it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import jsonschema
import pytest

from tests.unit.api import document as held
from tests.unit.api.fake_gate import edge
from tests.unit.api.fake_store import FakeStore

MESSAGE = {"role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "c", "content": "1"}


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "store": False, "metadata": None, "modalities": ["text"]},
        {"metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
        {"temperature": None, "stream": None, "tools": None, "response_format": None, "stop": None},
        {"llmos": None, "n": None, "logit_bias": None, "stream_options": None, "verbosity": None},
        {"llmos": {"nice": None, "driver": None, "class": None}},
        {"stream": True, "stream_options": {"include_usage": None, "include_obfuscation": False}},
        {"messages": [{"role": "developer", "content": "be kind"}, MESSAGE]},
        {"messages": [MESSAGE, CALLED, ANSWERED]},
        {"messages": [MESSAGE | {"name": None, "refusal": None, "annotations": [], "audio": None}]},
    ],
)
def test_a_chat_that_is_accepted_is_allowed(fields: dict[str, Any]) -> None:
    async def scene() -> None:
        async with edge() as e:
            assert (await e.chat(**fields)).status_code == 200

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a", "user": "u", "suffix": "", "echo": None}),
        (
            "/v1/responses",
            {"input": "a", "user": "u", "reasoning": {"effort": None}, "truncation": "disabled"},
        ),
        ("/v1/responses", {"input": "a", "store": None, "text": {"verbosity": "medium"}}),
    ],
)
def test_another_body_that_is_accepted_is_allowed(path: str, body: dict[str, Any]) -> None:
    async def scene() -> None:
        async with edge(FakeStore().scripts) as e:
            assert (await e.post(path, {"model": "echo", **body})).status_code == 200

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("RerankBody", {"model": "m", "query": "q", "documents": ["a", {"text": "b", "id": 1}]}),
        ("ModerationsBody", {"input": ["a", {"type": "text", "text": "b"}]}),
        ("SpeechBody", {"model": "m", "input": "a", "instructions": "", "stream_format": "audio"}),
        ("EmbeddingsBody", {"model": "m", "input": "a", "user": "u", "dimensions": None}),
    ],
)
def test_what_a_shape_reads_its_schema_allows(name: str, body: dict[str, Any]) -> None:
    held.compiled({"$ref": f"#/components/schemas/{name}"}).validate(body)


def _asked(body: dict[str, Any], status: int) -> httpx.Response:
    request = httpx.Request("POST", "http://edge/v1/rerank", json=body)
    envelope = {"message": "m", "type": "t", "param": None, "code": "invalid_request"}
    return httpx.Response(status, json={"error": envelope}, request=request)


def test_what_the_document_forbids_and_the_edge_accepts_is_noticed() -> None:
    body = {"model": "m", "query": "q", "documents": ["a"], "temprature": 1}
    asyncio.run(held.check(_asked(body, 400)))
    with pytest.raises(jsonschema.ValidationError, match="temprature"):
        asyncio.run(held.check(_asked(body, 200)))


@pytest.mark.parametrize(("fields", "allowed"), [({"stream": "false"}, True), ({"x": "1"}, False)])
def test_a_form_is_held_to_the_document(fields: dict[str, str], allowed: bool) -> None:
    async def scene() -> None:
        request = httpx.Request(
            "POST",
            "http://edge/v1/audio/transcriptions",
            data={"model": "m", **fields},
            files={"file": ("a.wav", b"RIFF\xff\x00")},
        )
        said = {"content-type": "text/plain; charset=utf-8"}
        await held.check(httpx.Response(200, text="hi\n", headers=said, request=request))

    if allowed:
        asyncio.run(scene())
    else:
        with pytest.raises(jsonschema.ValidationError, match="'x' was unexpected"):
            asyncio.run(scene())
