"""POST /v1/completions: every form of prompt, several prompts, streamed and whole."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmos.abi.inference import TextPrompt, TokensPrompt
from llmos.abi.syscall import Infer, Syscall
from llmos.errors import ContextLengthExceeded
from llmos.shapes.answers import CompletionAnswer
from tests.unit.api.fake_gate import FakeGate, edge, events_of, finished, tokens

PATH = "/v1/completions"


async def _parrot(gate: FakeGate, call: Syscall) -> None:
    """Says its own prompt."""
    assert isinstance(call.body, Infer)
    prompt = call.body.prompt
    if isinstance(prompt, TextPrompt) and prompt.text == "too long":
        raise ContextLengthExceeded("too long", param="prompt")
    gate.accept(call)
    said = prompt.text if isinstance(prompt, TextPrompt) else "tokens"
    gate.emit(call, *tokens(*said))
    gate.emit(call, finished(len(said)))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [TextPrompt("a")]),
        ("", [TextPrompt("")]),
        (["a", "b"], [TextPrompt("a"), TextPrompt("b")]),
        ([1, 2], [TokensPrompt([1, 2])]),
        ([[1], [2, 3]], [TokensPrompt([1]), TokensPrompt([2, 3])]),
    ],
)
def test_every_form_of_prompt(prompt: Any, expected: list[Any]) -> None:
    async def scene() -> None:
        async with edge({Infer: _parrot}) as e:
            response = await e.post(PATH, {"model": "echo", "prompt": prompt})
            answer = CompletionAnswer.model_validate_json(response.content)
            assert [b.prompt for b in e.gate.bodies if isinstance(b, Infer)] == expected
            assert [c.index for c in answer.choices] == list(range(len(expected)))

    asyncio.run(scene())


def test_choices_keep_their_prompts_order_and_usage_is_their_sum() -> None:
    async def scene() -> None:
        async with edge({Infer: _parrot}) as e:
            response = await e.post(PATH, {"model": "echo", "prompt": ["one", "three"]})
            answer = CompletionAnswer.model_validate_json(response.content)
            assert [c.text for c in answer.choices] == ["one", "three"]
            assert answer.usage is not None
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 8)
            assert isinstance(answer.llmos, list)
            assert len({r.request_id for r in answer.llmos}) == 2

    asyncio.run(scene())


def test_several_prompts_streamed() -> None:
    async def scene() -> None:
        async with edge({Infer: _parrot}) as e:
            response = await e.post(
                PATH,
                {
                    "model": "echo",
                    "prompt": ["one", "three"],
                    "stream": True,
                    "stream_options": {"include_usage": True},
                },
            )
            *chunks, done = events_of(response.text)
            assert done == "[DONE]"
            parsed = [CompletionAnswer.model_validate_json(c) for c in chunks]
            texts = {0: "", 1: ""}
            for chunk in parsed:
                for choice in chunk.choices:
                    texts[choice.index] += choice.text
            assert texts == {0: "one", 1: "three"}
            ends = [c.finish_reason for p in parsed for c in p.choices if c.finish_reason]
            assert ends == ["stop", "stop"]
            assert len({p.id for p in parsed}) == 1
            assert parsed[-1].usage is not None
            assert parsed[-1].usage.completion_tokens == 8

    asyncio.run(scene())


@pytest.mark.parametrize("stream", [True, False])
def test_one_refused_prompt_refuses_all_and_cancels_the_others(stream: bool) -> None:
    async def scene() -> None:
        async with edge({Infer: _accept_or_refuse}) as e:
            body = {"model": "echo", "prompt": ["a", "too long", "b"], "stream": stream}
            response = await e.post(PATH, body)
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "context_length_exceeded"
            await e.gate.until(lambda: {c.call for c in e.gate.cancels} == {1, 3})

    asyncio.run(scene())


async def _accept_or_refuse(gate: FakeGate, call: Syscall) -> None:
    assert isinstance(call.body, Infer)
    if call.body.prompt == TextPrompt("too long"):
        raise ContextLengthExceeded("too long", param="prompt")
    gate.accept(call)


def test_one_choice_failing_in_mid_stream_ends_all() -> None:
    async def script(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        if call.call == 2:
            gate.emit(call, *tokens("x"))
            await gate.until(lambda: bool(gate.acks))
            gate.channel.send(_failed(call))

    async def scene() -> None:
        async with edge({Infer: script}) as e:
            body = {"model": "echo", "prompt": ["a", "b"], "stream": True}
            *_, last = events_of((await e.post(PATH, body)).text)
            assert json.loads(last)["error"]["code"] == "worker_lost"
            await e.gate.until(lambda: [c.call for c in e.gate.cancels] == [1])

    asyncio.run(scene())


def _failed(call: Syscall) -> Any:
    from llmos.abi.events import Failed
    from llmos.abi.syscall import Emit
    from llmos.errors import WorkerLost

    return Emit(call.call, [Failed("r", WorkerLost("killed").to_info())])


def test_the_default_length_is_openais() -> None:
    async def scene() -> None:
        async with edge() as e:
            await e.post(PATH, {"model": "echo", "prompt": "x"})
            await e.post(PATH, {"model": "echo", "prompt": "x", "max_tokens": 199})
            asked = [b.sampling.max_tokens for b in e.gate.bodies if isinstance(b, Infer)]
            assert asked == [16, 199]

    asyncio.run(scene())
