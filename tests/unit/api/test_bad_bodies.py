"""Bad input: always a 4xx envelope that names the field, before the gate is asked anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.shapes.answers import ErrorAnswer
from tests.unit.api.fake_gate import Edge, edge

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HI = [{"role": "user", "content": "hi"}]


class Shared:
    """One edge and one loop for all tests of this module: making an app takes a while."""

    def __init__(self, runner: asyncio.Runner, e: Edge) -> None:
        self._runner = runner
        self._edge = e

    def post(self, path: str, raw: bytes, kind: str = "application/json") -> httpx.Response:
        self._edge.gate.calls.clear()
        sending = self._edge.client.post(path, content=raw, headers={"content-type": kind})
        return self._runner.run(sending)

    def refused(
        self, path: str, raw: bytes, kind: str = "application/json"
    ) -> tuple[int, str, str | None]:
        """Status, code and param of the answer to a body that never reaches the gate."""
        response = self.post(path, raw, kind)
        error = ErrorAnswer.model_validate_json(response.content).error
        assert not self.reached_the_gate
        return response.status_code, error.code, error.param

    @property
    def reached_the_gate(self) -> bool:
        return bool(self._edge.gate.calls)


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with asyncio.Runner() as runner:
        opened = edge(max_messages=4, max_prompts=4, max_prompt_tokens=8)
        yield Shared(runner, runner.run(opened.__aenter__()))
        runner.run(opened.__aexit__(None, None, None))


def _chat(**fields: Any) -> bytes:
    return json.dumps({"model": "echo", "messages": HI, **fields}).encode()


def _text(**fields: Any) -> bytes:
    return json.dumps({"model": "echo", "prompt": "x", **fields}).encode()


INVALID_CHAT: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model"),
    ({"model": 3}, "model"),
    ({"model": None}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [3]}, "messages.0"),
    ({"messages": HI * 5}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
    (
        {"messages": [*HI, {"role": "user", "content": [{"type": "text"}]}]},
        "messages.1.content.0.text",
    ),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": [{"type": "tex"}]}]}, "messages.0.content.0.type"),
    ({"messages": [{"role": "user", "content": "x", "name": ""}]}, "messages.0.name"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 1.01}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"seed": 2**63}, "seed"),
    ({"seed": True}, "seed"),
    ({"frequency_penalty": 3}, "frequency_penalty"),
    ({"presence_penalty": -3}, "presence_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": ""}, "stop.0"),
    ({"stop": [3]}, "stop.0"),
    ({"stop_token_ids": [-1]}, "stop_token_ids.0"),
    ({"n": 0}, "n"),
    ({"n": True}, "n"),
    ({"n": 129}, "n"),
    ({"n": 33}, "n"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias.x"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1"),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    ({"response_format": {"type": "text", "x": 1}}, "response_format.x"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "response_format.json_schema.name",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 1}}},
        "response_format.json_schema.schema",
    ),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"enum": ["y" * 70_000]}},
            }
        },
        "response_format.json_schema.schema",
    ),
    ({"response_format": {"type": "json_object"}, "llmos": {"regex": "a"}}, "response_format"),
    ({"llmos": {"regex": ""}}, "llmos.regex"),
    ({"llmos": {"grammar": "x" * 65_537}}, "llmos.grammar"),
    ({"llmos": {"json_schema": []}}, "llmos.json_schema"),
    ({"llmos": {"tool_format": "smoke"}}, "llmos.tool_format"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]},
        "tools.0.function.parameters",
    ),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "maybe"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages.0.tool_calls.0.id"),
    (
        {"messages": [{"role": "user", "content": "x", "tool_call_id": "y"}]},
        "messages.0.tool_call_id",
    ),
    ({"stream": "yes"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"llmos": 3}, "llmos"),
    ({"llmos": {"class": "king"}}, "llmos.class"),
    ({"llmos": {"nice": 20}}, "llmos.nice"),
    ({"llmos": {"deadline_ms": 0}}, "llmos.deadline_ms"),
    ({"llmos": {"driver": []}}, "llmos.driver"),
    ({"llmos": {"driver": {"x": [2**64]}}}, "llmos.driver"),
    ({"llmos": {"driver": {"x": "y" * 20_000}}}, "llmos.driver"),
    ({"llmos": {"class": "batch"}, "service_tier": "priority"}, "llmos.class"),
]


@pytest.mark.parametrize(("fields", "param"), INVALID_CHAT, ids=lambda v: str(v)[:50])
def test_an_invalid_field_of_chat(shared: Shared, fields: dict[str, Any], param: str) -> None:
    assert shared.refused(CHAT, _chat(**fields)) == (400, "invalid_request", param)


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "custom", "custom": {}}]}, "tools.0.type"),
    ({"tool_choice": {"type": "custom"}}, "tool_choice.type"),
    ({"audio": {"voice": "x"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"prediction": {"type": "content"}}, "prediction"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"service_tier": "scale"}, "service_tier"),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "messages.0.content.0.type",
    ),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED, ids=lambda v: str(v)[:50])
def test_a_documented_field_we_do_not_honour(
    shared: Shared, fields: dict[str, Any], param: str
) -> None:
    assert shared.refused(CHAT, _chat(**fields)) == (400, "unsupported_parameter", param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True, "stream": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
    ],
)
def test_a_documented_field_of_completions_we_do_not_honour(
    shared: Shared, fields: dict[str, Any], param: str
) -> None:
    assert shared.refused(TEXT, _text(**fields)) == (400, "unsupported_parameter", param)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (3, "prompt"),
        ([], "prompt"),
        (None, "prompt"),
        ([[]], "prompt.0"),
        (["a", 1], "prompt.1"),
        ([1, "a"], "prompt.1"),
        ([1, True], "prompt.1"),
        ([[1], [2, -1]], "prompt.1.1"),
        ([2**31], "prompt.0"),
        ([1.0], "prompt.0"),
        (["x"] * 5, "prompt"),
        ([1] * 9, "prompt"),
        ({}, "prompt"),
    ],
)
def test_an_invalid_prompt(shared: Shared, prompt: Any, param: str) -> None:
    assert shared.refused(TEXT, _text(prompt=prompt)) == (400, "invalid_request", param)


@pytest.mark.parametrize(
    ("fields", "param", "near"),
    [
        ({"temprature": 1}, "temprature", "temperature"),
        ({"llmos": {"nise": 1}}, "llmos.nise", "nice"),
        (
            {"stream": True, "stream_options": {"include_usge": True}},
            "stream_options.include_usge",
            "include_usage",
        ),
        ({"messages": [{"role": "user", "contnt": "x"}]}, "messages.0.contnt", "content"),
        ({"tool": []}, "tool", "tools"),
    ],
)
def test_an_unknown_field_names_near_ones(
    shared: Shared, fields: dict[str, Any], param: str, near: str
) -> None:
    error = shared.post(CHAT, _chat(**fields)).json()["error"]
    assert (error["code"], error["param"]) == ("unknown_parameter", param)
    assert near in error["message"]
    assert near in error["details"]["near"]


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b'"x"', "body"),
        (b"null", "body"),
        (b"\xff\xfe", "body"),
        (b'{"model":"a","model":"b"}', "model"),
        (b'{"messages":[{"role":"user","role":"system"}]}', "messages.0.role"),
        (b'{"temperature":NaN}', "body"),
        (b'{"temperature":-Infinity}', "body"),
        (b'{"model":"a\\u0000b"}', "model"),
        (b'{"model":"\\ud800"}', "model"),
        (b'{"a\\u0000":1}', "body"),
        (b'{"llmos":{"driver":' + b"[" * 100 + b"]" * 100 + b"}}", None),
        (b"[" * 100_000, "body"),
        (b'{"seed":' + b"9" * 5000 + b"}", "body"),
        (_chat().replace(b"hi", b"\\udc00"), "messages.0.content"),
    ],
    ids=range(17),
)
def test_not_the_json_we_accept(shared: Shared, raw: bytes, param: str | None) -> None:
    status, code, where = shared.refused(CHAT, raw)
    assert (status, code) == (400, "invalid_request")
    assert where == param or (param is None and str(where).startswith("llmos.driver.0"))


def test_a_float_beyond_all_bounds(shared: Shared) -> None:
    raw = _chat(temperature=0).replace(b'"temperature": 0', b'"temperature": 1e999')
    assert shared.refused(CHAT, raw) == (400, "invalid_request", "temperature")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type(shared: Shared, kind: str) -> None:
    assert shared.refused(CHAT, _chat(), kind) == (400, "invalid_request", "content-type")


def test_surrogate_pairs_are_characters(shared: Shared) -> None:
    body = _chat(messages=[{"role": "user", "content": "😀 你好"}])
    assert b"\\ud83d" in body
    assert shared.post(CHAT, body).status_code == 200


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["user", "text", "echo", "auto", "batch", 0, 1, -1]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
WORDS = """model messages prompt stream stream_options temperature top_p top_k seed stop
stop_token_ids n max_tokens logit_bias llmos service_tier tools response_format user role content"""
NAMES = st.sampled_from(WORDS.split()) | st.text(max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from([CHAT, TEXT, "/os/v1/models", "/os/v1/keys"]),
    fields=st.dictionaries(NAMES, VALUES, max_size=5),
    is_complete=st.booleans(),
)
def test_no_body_breaks_the_edge(
    shared: Shared, path: str, fields: dict[str, Any], is_complete: bool
) -> None:
    """Whatever the body: accepted, or a 4xx envelope. The fake gate has no script for the rest."""
    base = {"model": "echo", "messages": HI} if path == CHAT else {"model": "echo", "prompt": "x"}
    body = {**(base if is_complete else {}), **fields}

    response = shared.post(path, json.dumps(body).encode())
    if response.status_code != 200 and not shared.reached_the_gate:
        assert 400 <= response.status_code < 500, response.text
        ErrorAnswer.model_validate_json(response.content)


BASES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "echo", "input": "x", "store": False},
    "/v1/batches": {"input_file_id": "f", "endpoint": TEXT, "completion_window": "24h"},
    "/os/v1/jobs": {"program": "drill"},
    "/os/v1/schedules": {"cron": "0 3 * * *", "spec": {"program": "drill"}},
}
DURABLE_WORDS = """input instructions metadata background store text reasoning include conversation
previous_response_id input_file_id endpoint completion_window output_expires_after program inputs
needs files class nice timeout_s start_at_ns cron spec timezone parent_id stream llmos"""
DURABLE_NAMES = st.sampled_from(DURABLE_WORDS.split()) | st.text(max_size=6)


@settings(max_examples=80, deadline=None)
@given(
    path=st.sampled_from(sorted(BASES)),
    fields=st.dictionaries(DURABLE_NAMES, VALUES, max_size=4),
    is_complete=st.booleans(),
)
def test_no_body_of_what_lasts_breaks_the_edge(
    shared: Shared, path: str, fields: dict[str, Any], is_complete: bool
) -> None:
    body = {**(BASES[path] if is_complete else {}), **fields}
    response = shared.post(path, json.dumps(body).encode())
    if response.status_code != 200 and not shared.reached_the_gate:
        assert 400 <= response.status_code < 500, response.text
        ErrorAnswer.model_validate_json(response.content)


@settings(max_examples=50, deadline=None)
@given(raw=st.binary(max_size=40) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "ignore")))
def test_no_bytes_break_the_edge(shared: Shared, raw: bytes) -> None:
    status, _, _ = shared.refused(CHAT, raw)
    assert status == 400
