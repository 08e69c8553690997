"""POST /v1/chat/completions, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmos.abi.events import Aborted, Failed, Finished, FinishReason, Tokens
from llmos.abi.inference import UNBOUNDED, ChatPrompt, Usage
from llmos.abi.principal import ServiceClass
from llmos.abi.syscall import Infer, Syscall
from llmos.errors import EngineFailed, QueueFull
from llmos.shapes.answers import ChatAnswer, ChatChunk
from tests.unit.api.fake_gate import FakeGate, edge, events_of, finished, tokens


def _wish(gate: FakeGate) -> Infer:
    (body,) = gate.bodies
    assert isinstance(body, Infer)
    return body


def test_a_whole_answer() -> None:
    async def scene() -> None:
        async with edge() as e:
            response = await e.chat()
            answer = ChatAnswer.model_validate_json(response.content)
            assert answer.choices[0].message.content == "Hi 你好"
            assert answer.choices[0].finish_reason == "stop"
            assert answer.usage.total_tokens == 5
            assert answer.usage.prompt_tokens_details.cached_tokens == 1
            assert answer.model == "echo:1"
            assert answer.service_tier == "priority"
            assert answer.llmos.service_class == "interactive"
            assert response.headers["x-request-id"] == answer.llmos.request_id
            assert answer.id == "chatcmpl-" + answer.llmos.request_id.removeprefix("req_")

    asyncio.run(scene())


def test_what_the_gate_is_asked() -> None:
    async def scene() -> None:
        async with edge() as e:
            await e.chat(
                messages=[
                    {"role": "developer", "content": "be brief"},
                    {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},
                    {"role": "assistant", "content": "yes", "name": "bob", "tool_calls": None},
                ],
                temperature=0,
                top_p=0.5,
                top_k=-1,
                min_p=0.1,
                seed=7,
                stop="\n",
                stop_token_ids=[3],
                max_tokens=9,
                max_completion_tokens=5,
                repetition_penalty=1.5,
                ignore_eos=True,
                service_tier="flex",
                user="someone",
                store=True,
                n=1,
                logprobs=False,
                tools=[],
                response_format={"type": "text"},
                llmos={"class": "batch", "nice": 3, "deadline_ms": 10, "driver": {"x": [1]}},
            )
            wish = _wish(e.gate)
            assert wish.route == "chat"
            assert wish.prompt == ChatPrompt(
                [
                    {"role": "system", "content": "be brief"},
                    {"role": "user", "content": "a\nb"},
                    {"role": "assistant", "content": "yes", "name": "bob"},
                ]
            )
            s = wish.sampling
            assert (s.temperature, s.top_p, s.top_k, s.min_p, s.seed) == (0.0, 0.5, 0, 0.1, 7)
            assert (s.stop, s.stop_token_ids, s.max_tokens) == (["\n"], [3], 5)
            assert (s.repetition_penalty, s.ignore_eos) == (1.5, True)
            options = wish.options
            assert (options.service_class, options.nice) == (ServiceClass.BATCH, 3)
            assert (options.deadline_ms, options.driver) == (10, {"x": [1]})

    asyncio.run(scene())


def test_defaults_are_openais() -> None:
    async def scene() -> None:
        async with edge() as e:
            await e.chat(temperature=None, stop=None)
            sampling = _wish(e.gate).sampling
            assert (sampling.temperature, sampling.top_p) == (1.0, 1.0)
            assert sampling.max_tokens == UNBOUNDED
            assert _wish(e.gate).options.service_class is None

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("tier", "cls"),
    [
        ("auto", None),
        ("default", ServiceClass.DEFAULT),
        ("flex", ServiceClass.BATCH),
        ("priority", ServiceClass.INTERACTIVE),
    ],
)
def test_service_tier_is_a_class_and_the_effective_one_is_echoed(
    tier: str, cls: ServiceClass | None
) -> None:
    async def scene() -> None:
        async with edge() as e:
            answer = (await e.chat(service_tier=tier)).json()
            assert _wish(e.gate).options.service_class is cls
            assert answer["service_tier"] == ("priority" if tier == "auto" else tier)

    asyncio.run(scene())


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_has_openais_chunks_in_order(include_usage: bool) -> None:
    async def scene() -> None:
        async with edge() as e:
            options = {"include_usage": True} if include_usage else None
            response = await e.chat(stream=True, stream_options=options)
            assert response.headers["content-type"].startswith("text/event-stream")
            *chunks, done = events_of(response.text)
            assert done == "[DONE]"
            parsed = [ChatChunk.model_validate_json(c) for c in chunks]
            assert {p.id for p in parsed} == {parsed[0].id}
            assert parsed[0].choices[0].delta.role == "assistant"
            deltas = [p.choices[0].delta.content for p in parsed if p.choices]
            assert "".join(filter(None, deltas)) == "Hi 你好"
            last = parsed[-2] if include_usage else parsed[-1]
            assert last.choices[0].finish_reason == "stop"
            assert last.llmos is not None
            assert last.llmos.request_id == response.headers["x-request-id"]
            if include_usage:
                assert parsed[-1].choices == []
                assert parsed[-1].usage is not None
                assert parsed[-1].usage.total_tokens == 5
                assert all('"usage":null' in c for c in chunks[:-1])
            else:
                assert not any("usage" in c for c in chunks)

    asyncio.run(scene())


def test_token_ids_on_request() -> None:
    async def scene() -> None:
        async with edge() as e:
            whole = (await e.chat(return_token_ids=True)).json()
            assert whole["choices"][0]["token_ids"] == [ord("H"), ord("你")]
            response = await e.chat(return_token_ids=True, stream=True)
            chunks = [json.loads(c) for c in events_of(response.text) if c != "[DONE]"]
            ids = [i for c in chunks for i in c["choices"][0].get("token_ids", [])]
            assert ids == [ord("H"), ord("你")]

    asyncio.run(scene())


def test_no_text_yet_is_no_chunk() -> None:
    async def half(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, *tokens(""), *tokens("你"), *tokens(""), finished())

    async def scene() -> None:
        async with edge({Infer: half}) as e:
            chunks = list(events_of((await e.chat(stream=True)).text))
            assert len(chunks) == 4  # role, text, finish, [DONE]

    asyncio.run(scene())


def test_line_separators_do_not_split_an_event() -> None:
    text = "a\u2028b\u2029c\x85d\r\ne"

    async def script(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, Tokens("r", [1], text), finished())

    async def scene() -> None:
        async with edge({Infer: script}) as e:
            lines = [x for x in (await e.chat(stream=True)).text.splitlines() if x]
            assert all(line.startswith("data: ") for line in lines)
            assert json.loads(lines[1][6:])["choices"][0]["delta"]["content"] == text

    asyncio.run(scene())


def test_length_and_the_stop_that_ended_it() -> None:
    async def script(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, Finished("r", FinishReason.LENGTH, Usage(1, 0), stop="END"))

    async def scene() -> None:
        async with edge({Infer: script}) as e:
            choice = (await e.chat()).json()["choices"][0]
            assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "END")
            assert choice["message"]["content"] == ""

    asyncio.run(scene())


@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_is_a_status_even_for_a_stream(stream: bool) -> None:
    async def full(gate: FakeGate, call: Syscall) -> None:
        raise QueueFull("queue full", retry_after_s=3)

    async def scene() -> None:
        async with edge({Infer: full}) as e:
            response = await e.chat(stream=stream)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "3"
            assert response.json()["error"]["retry_after_s"] == 3
            missing = await e.chat(stream=stream)
            assert missing.headers["x-request-id"].startswith("req_")

    asyncio.run(scene())


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_failure_in_mid_stream_is_an_error_event_and_no_done(in_one_batch: bool) -> None:
    async def breaks(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        bad = Failed("r", EngineFailed("engine broke").to_info())
        if in_one_batch:
            gate.emit(call, *tokens("par"), bad)
        else:
            gate.emit(call, *tokens("par"))
            await gate.until(lambda: bool(gate.acks))
            gate.emit(call, bad)

    async def scene() -> None:
        async with edge({Infer: breaks}) as e:
            *chunks, last = events_of((await e.chat(stream=True)).text)
            assert any("par" in c for c in chunks)
            assert json.loads(last)["error"]["code"] == "engine_failed"
            assert not any(c == "[DONE]" for c in chunks)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (Failed("r", EngineFailed("broke").to_info()), 502, "engine_failed"),
        (Aborted("r", "killed by an operator"), 409, "cancelled"),
    ],
)
def test_a_failure_of_a_whole_answer_is_a_status(event: Any, status: int, code: str) -> None:
    async def breaks(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, *tokens("par"), event)

    async def scene() -> None:
        async with edge({Infer: breaks}) as e:
            response = await e.chat()
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)

    asyncio.run(scene())


def test_a_silent_stream_sends_comments() -> None:
    async def slow(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, *tokens("a"))

    async def scene() -> None:
        async with edge({Infer: slow}, keepalive_comment_s=0.02) as e:
            asking = asyncio.ensure_future(e.chat(stream=True))
            await e.gate.until(lambda: bool(e.gate.acks))
            # nothing to wait for but time itself: three periods of silence
            await asyncio.get_running_loop().create_task(_ticks(0.06))
            e.gate.emit(e.gate.calls[0], finished())
            text = (await asking).text
            assert text.count(": keep-alive\n\n") >= 2
            assert list(events_of(text))[-1] == "[DONE]"

    asyncio.run(scene())


async def _ticks(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    await passed


def test_the_gate_going_away_ends_a_stream_with_an_error() -> None:
    async def dies(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, *tokens("a"))
        gate.channel.close()

    async def scene() -> None:
        async with edge({Infer: dies}) as e:
            *_, last = events_of((await e.chat(stream=True)).text)
            assert json.loads(last)["error"]["code"] == "worker_lost"
            assert (await e.chat()).status_code == 503
            assert (await e.client.get("/healthz")).status_code == 503

    asyncio.run(scene())


def test_trace_parent_is_handed_on_when_well_formed() -> None:
    good = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"

    async def scene() -> None:
        async with edge() as e:
            for header in (good, "nonsense"):
                await e.client.post(
                    "/v1/chat/completions",
                    json={"model": "echo", "messages": [{"role": "user", "content": "x"}]},
                    headers={"traceparent": header},
                )
            assert [c.trace_parent for c in e.gate.calls] == [good, None]

    asyncio.run(scene())
