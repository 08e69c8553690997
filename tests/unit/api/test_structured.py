"""Several answers, log-probabilities and calls of tools, in the shapes that are written down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from llmos.abi.events import Event, Logprobs, TokenLogprob, Tokens
from llmos.abi.inference import Grammar
from llmos.abi.program import Answer
from llmos.abi.syscall import Infer, Syscall
from llmos.shapes.answers import ChatAnswer, ChatChunk, CompletionAnswer
from llmos.shapes.calls import CHAT, answer_body, infer_of, remembered
from tests.unit.api.fake_gate import Edge, FakeGate, edge, events_of, finished

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALL = 'Now.\n<tool_call>{"name": "f", "arguments": {"a": "é"}}</tool_call>'
PRICE = Logprobs(TokenLogprob(5, b"\xc3", -0.5), [TokenLogprob(5, b"\xc3", -0.5)])


def play(scene: Callable[[Edge], Awaitable[None]], *events: Event, form: str = "hermes") -> None:
    async def script(gate: FakeGate, call: Syscall) -> None:
        gate.tool_format = form
        gate.accept(call)
        for event in events:
            gate.emit(call, event)
        gate.emit(call, finished())

    async def run() -> None:
        async with asyncio.timeout(20), edge({Infer: script}) as e:
            await scene(e)

    asyncio.run(run())


def chunks(text: str) -> list[ChatChunk]:
    return [ChatChunk.model_validate_json(d) for d in events_of(text) if d != "[DONE]"]


def letters(text: str) -> list[Event]:
    return [Tokens("r", [ord(c)], c) for c in text]


def test_calls_whole_and_streamed() -> None:
    async def scene(e: Edge) -> None:
        answer = ChatAnswer.model_validate_json((await e.chat(tools=TOOLS)).content)
        (choice,) = answer.choices
        (call,) = choice.message.tool_calls or ()
        assert (choice.message.content, choice.finish_reason) == ("Now.", "tool_calls")
        assert (call.function.name, json.loads(call.function.arguments)) == ("f", {"a": "é"})
        streamed = chunks((await e.chat(tools=TOOLS, stream=True)).text)
        deltas = [c.choices[0].delta for c in streamed]
        assert "".join(d.content or "" for d in deltas) == "Now."
        said = [one for d in deltas for one in d.tool_calls or ()]
        assert [one.function.name for one in said if one.id] == ["f"]
        assert "".join(one.function.arguments for one in said) == call.function.arguments
        assert len(said) > 5
        assert streamed[-1].choices[0].finish_reason == "tool_calls"

    play(scene, *letters(CALL))


def test_without_tools_a_call_is_text() -> None:
    async def scene(e: Edge) -> None:
        answer = ChatAnswer.model_validate_json((await e.chat()).content)
        assert answer.choices[0].message.content == CALL
        assert answer.choices[0].message.tool_calls is None

    play(scene, *letters(CALL), form="")


def test_what_was_withheld_comes_with_the_end() -> None:
    async def scene(e: Edge) -> None:
        streamed = chunks((await e.chat(tools=TOOLS, stream=True)).text)
        assert [c.choices[0].delta.content for c in streamed] == ["", "a", " <tool_"]
        assert streamed[-1].choices[0].finish_reason == "stop"

    play(scene, *letters("a <tool_"))


def test_several_answers_and_their_seeds() -> None:
    async def scene(e: Edge) -> None:
        answer = ChatAnswer.model_validate_json((await e.chat(n=3, seed=2**63 - 2)).content)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert answer.usage.prompt_tokens == 3
        assert answer.usage.completion_tokens == 6
        assert isinstance(answer.llmos, list)
        seeds = [b.sampling.seed for b in e.gate.bodies if isinstance(b, Infer)]
        assert seeds == [2**63 - 2, 2**63 - 1, -(2**63)]
        streamed = chunks((await e.chat(n=2, stream=True)).text)
        assert {c.choices[0].index for c in streamed} == {0, 1}
        body = {"model": "echo", "prompt": ["x", "y"], "n": 2}
        text = CompletionAnswer.model_validate_json((await e.post("/v1/completions", body)).content)
        assert [choice.index for choice in text.choices] == [0, 1, 2, 3]
        assert text.usage is not None
        assert text.usage.prompt_tokens == 6

    play(scene, *letters("ab"), form="")


def test_logprobs_of_half_a_character() -> None:
    """They come even where there is no text yet."""
    event = Tokens("r", [5], "", [PRICE])

    async def scene(e: Edge) -> None:
        asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 1}
        answer = ChatAnswer.model_validate_json((await e.chat(**asked)).content)
        found = answer.choices[0].logprobs
        assert found is not None
        assert (found.content[0].token, found.content[0].bytes) == ("�", [0xC3])
        streamed = chunks((await e.chat(**asked, stream=True)).text)
        assert [c.choices[0].logprobs for c in streamed] == [None, found, None]
        wish = e.gate.bodies[0]
        assert isinstance(wish, Infer)
        assert wish.sampling.logprobs == 1
        body = {"model": "echo", "prompt": "x", "logprobs": 1, "stream": True}
        text = (await e.post("/v1/completions", body)).text
        first = CompletionAnswer.model_validate_json(next(events_of(text)))
        assert first.choices[0].logprobs is not None
        assert first.choices[0].logprobs.text_offset == [0]

    play(scene, event, form="")


def test_what_the_gate_is_asked() -> None:
    async def scene(e: Edge) -> None:
        schema = {"type": "object"}
        await e.chat(
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": schema, "strict": True},
            },
            logit_bias={"7": -3, "2": 100},
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "f"}},
            parallel_tool_calls=False,
            llmos={"tool_format": "mistral"},
        )
        (wish,) = e.gate.bodies
        assert isinstance(wish, Infer)
        assert wish.sampling.grammar == Grammar("json_schema", '{"type": "object"}')
        assert wish.sampling.logit_bias == [(2, 100.0), (7, -3.0)]
        prompt: Any = wish.prompt
        assert prompt.tools[0]["function"]["name"] == "f"
        assert (prompt.tool_choice, prompt.tool_format) == ("name:f", "mistral")
        assert not prompt.parallel_tools

    play(scene, *letters("x"), form="")


def test_a_line_of_a_batch_calls() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "tools": TOOLS,
        "parallel_tool_calls": False,
    }
    infer_of(CHAT, body)
    answer = Answer("req_1", "m:1", CALL + CALL, [1], "stop", None, tool_format="hermes")
    made = ChatAnswer.model_validate_json(
        json.dumps(answer_body(CHAT, remembered(CHAT, body), answer))
    )
    assert len(made.choices[0].message.tool_calls or ()) == 1
