"""Functions as clients called tools before there were tools, tools that may be called, the best of
several texts, and vLLM's structured outputs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmos.abi.events import Finished, FinishReason, Logprobs, TokenLogprob, Tokens
from llmos.abi.inference import ChatPrompt, Grammar, Usage
from llmos.abi.program import Answer
from llmos.abi.syscall import Infer, Syscall
from llmos.shapes.answers import ChatAnswer, CompletionAnswer, ErrorAnswer
from llmos.shapes.calls import CHAT, answer_body, infer_of, remembered
from llmos.shapes.response_object import ResponseObject
from llmos.shapes.responses import read_response
from tests.unit.api.fake_gate import Edge, FakeGate, edge
from tests.unit.api.test_structured import CALL, chunks, letters, play

FUNCTIONS = [{"name": "f", "description": "d", "parameters": {"type": "object"}}, {"name": "g"}]
TOOLS = [{"type": "function", "function": one} for one in FUNCTIONS]
ASK = [{"role": "user", "content": "x"}]


def prompt_of(**fields: Any) -> ChatPrompt:
    wish = infer_of(CHAT, {"model": "m", "messages": ASK, **fields})
    assert isinstance(wish.prompt, ChatPrompt)
    return wish.prompt


def names(prompt: ChatPrompt) -> list[str]:
    return [tool["function"]["name"] for tool in prompt.tools or ()]


def test_a_function_is_called_whole_and_streamed() -> None:
    async def scene(e: Edge) -> None:
        answer = ChatAnswer.model_validate_json((await e.chat(functions=FUNCTIONS)).content)
        (choice,) = answer.choices
        assert choice.finish_reason == "function_call"
        assert choice.message.tool_calls is None
        called = choice.message.function_call
        assert called is not None
        assert (choice.message.content, called.name) == ("Now.", "f")
        assert json.loads(called.arguments) == {"a": "é"}
        streamed = chunks((await e.chat(functions=FUNCTIONS, stream=True)).text)
        said = [d for c in streamed if (d := c.choices[0].delta.function_call)]
        assert [one.name for one in said if one.name] == ["f"]
        assert "".join(one.arguments for one in said) == called.arguments
        assert streamed[-1].choices[0].finish_reason == "function_call"
        assert not any(c.choices[0].delta.tool_calls for c in streamed)

    play(scene, *letters(CALL + CALL.removeprefix("Now.")))


def test_no_function_is_called() -> None:
    async def scene(e: Edge) -> None:
        answer = ChatAnswer.model_validate_json((await e.chat(functions=FUNCTIONS)).content)
        assert answer.choices[0].message.content == "just words"
        assert answer.choices[0].message.function_call is None
        assert answer.choices[0].finish_reason == "stop"

    play(scene, *letters("just words"))


def test_a_line_of_a_batch_calls_a_function() -> None:
    body = {"model": "m", "messages": ASK, "functions": FUNCTIONS, "function_call": {"name": "f"}}
    infer_of(CHAT, body)
    answer = Answer("req_1", "m:1", CALL, [1], "stop", None, tool_format="hermes")
    kept = remembered(CHAT, body)
    made = ChatAnswer.model_validate_json(json.dumps(answer_body(CHAT, kept, answer)))
    assert made.choices[0].message.function_call is not None


def test_functions_are_tools_to_a_model() -> None:
    prompt = prompt_of(functions=FUNCTIONS)
    assert names(prompt) == ["f", "g"]
    assert (prompt.tool_choice, prompt.parallel_tools) == ("auto", False)
    assert prompt_of(functions=FUNCTIONS, function_call={"name": "g"}).tool_choice == "name:g"
    assert prompt_of(functions=FUNCTIONS, function_call="none").tool_choice == "none"
    assert prompt_of(functions=[], function_call="auto").tools is None


def test_what_functions_said_is_told_back() -> None:
    call = {"name": "f", "arguments": "{}"}
    messages = [
        *ASK,
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "f", "content": "42"},
    ]
    asked, called, told = prompt_of(messages=messages).messages
    assert asked == ASK[0]
    (made,) = called["tool_calls"]
    assert (made["function"], "function_call" in called) == (call, False)
    assert told == {
        "role": "tool", "name": "f", "content": "42", "tool_call_id": made["id"],
    }  # fmt: skip


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_allowed_tools_are_all_there_are() -> None:
    prompt = prompt_of(tools=TOOLS, tool_choice=allowed("required", "g"))
    assert (names(prompt), prompt.tool_choice) == (["g"], "required")
    prompt = prompt_of(tools=TOOLS, tool_choice=allowed("auto", "f", "g"))
    assert (names(prompt), prompt.tool_choice) == (["f", "g"], "auto")


def test_a_call_that_is_not_allowed_is_text() -> None:
    """Where a format leaves room for doubt: an object that names no tool is no call."""
    said = '{"name": "f", "parameters": {}}'

    async def scene(e: Edge) -> None:
        for name, is_called in (("f", True), ("g", False)):
            got = await e.chat(tools=TOOLS, tool_choice=allowed("auto", name))
            answer = ChatAnswer.model_validate_json(got.content)
            assert bool(answer.choices[0].message.tool_calls) is is_called

    play(scene, *letters(said), form="llama3")


def test_a_response_tells_which_tools_are_allowed() -> None:
    given = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}
    tools = [{"type": "function", **one} for one in FUNCTIONS]
    asked = {"model": "m", "input": "x", "tools": tools, "tool_choice": given, "store": False}
    prompt = read_response(asked, 9).to_generate([]).prompt
    assert isinstance(prompt, ChatPrompt)
    assert names(prompt) == ["g"]

    async def scene(e: Edge) -> None:
        got = await e.post("/v1/responses", asked)
        assert ResponseObject.model_validate_json(got.content).tool_choice == given

    play(scene, *letters("x"))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"functions": "f"}, "functions"),
    ({"functions": [{}]}, "functions.0.name"),
    ({"functions": ["f"]}, "functions.0"),
    ({"functions": [{"name": "f", "nonsense": 1}]}, "functions.0.nonsense"),
    ({"functions": FUNCTIONS, "function_call": {"name": "h"}}, "function_call"),
    ({"functions": FUNCTIONS, "function_call": "required"}, "function_call"),
    ({"functions": FUNCTIONS, "tools": TOOLS}, "functions"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.name"),
    (
        {"messages": [{"role": "user", "function_call": {"name": "f", "arguments": ""}}]},
        "messages.0.function_call",
    ),
    (
        {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]},
        "messages.0.function_call.arguments",
    ),
    ({"tools": TOOLS, "tool_choice": allowed("auto", "h")}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools"),
    ({"tools": TOOLS, "tool_choice": allowed("none", "f")}, "tool_choice.allowed_tools.mode"),
    ({"tool_choice": allowed("auto", "f")}, "tool_choice"),
    ({"structured_outputs": {}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
    ({"structured_outputs": {"rejex": "a"}}, "structured_outputs.rejex"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
    ({"structured_outputs": {"regex": 5}}, "structured_outputs.regex"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_wrong(fields: dict[str, Any], param: str) -> None:
    async def scene(e: Edge) -> None:
        got = await e.chat(**fields)
        assert got.status_code == 400
        assert ErrorAnswer.model_validate_json(got.content).error.param == param
        assert not e.gate.bodies

    play(scene, *letters("x"))


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"json": {"type": "object"}}, "json_schema", '{"type": "object"}'),
        ({"json": '{"type":"object"}'}, "json_schema", '{"type": "object"}'),
        ({"json_object": True}, "json_schema", '{"type":"object"}'),
        ({"regex": "a+", "choice": None}, "regex", "a+"),
        ({"choice": ['a"b', "好"]}, "lark", 'start: "a\\"b" | "好"'),
        ({"grammar": 'start: "x"'}, "lark", 'start: "x"'),
    ],
)
def test_structured_outputs(given: dict[str, Any], kind: str, text: str) -> None:
    wish = infer_of(CHAT, {"model": "m", "messages": ASK, "structured_outputs": given})
    assert wish.sampling.grammar == Grammar(kind, text)


async def _worse_each_time(gate: FakeGate, call: Syscall) -> None:
    """Answer i is said with a log-probability of -1 for the third, less for the others."""
    assert isinstance(call.body, Infer)
    gate.accept(call)
    number = gate.calls.index(call)
    priced = TokenLogprob(5, b"x", -1.0 - abs(number - 2))
    told = None if call.body.sampling.logprobs is None else [Logprobs(priced, [])]
    gate.emit(call, Tokens("r", [5], f"answer {number}", told))
    gate.emit(call, Finished("r", FinishReason.STOP, Usage(3, 1)))


def complete(scene: Callable[[Edge], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), edge({Infer: _worse_each_time}) as e:
            await scene(e)

    asyncio.run(run())


def test_the_best_of_several() -> None:
    async def scene(e: Edge) -> None:
        body = {"model": "m", "prompt": "x", "best_of": 4, "n": 2, "seed": 7}
        got = await e.post("/v1/completions", body)
        answer = CompletionAnswer.model_validate_json(got.content)
        assert answer.choices[0].text == "answer 2"
        assert answer.choices[1].text in {"answer 1", "answer 3"}
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert answer.choices[0].logprobs is None  # nobody asked for them
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4)
        seeds = [b.sampling.seed for b in e.gate.bodies if isinstance(b, Infer)]
        assert seeds == [7, 8, 9, 10]

    complete(scene)


def test_one_of_one_needs_no_logprobs() -> None:
    async def scene(e: Edge) -> None:
        await e.post("/v1/completions", {"model": "m", "prompt": "x", "best_of": 1})
        (wish,) = e.gate.bodies
        assert isinstance(wish, Infer)
        assert wish.sampling.logprobs is None

    complete(scene)


@pytest.mark.parametrize("fields", [{"n": 3}, {"stream": True}, {"best_of": 21}, {"best_of": 0}])
def test_what_cannot_be_chosen(fields: dict[str, Any]) -> None:
    async def scene(e: Edge) -> None:
        got = await e.post("/v1/completions", {"model": "m", "prompt": "x", "best_of": 2, **fields})
        assert got.status_code == 400
        assert ErrorAnswer.model_validate_json(got.content).error.param == "best_of"

    complete(scene)
