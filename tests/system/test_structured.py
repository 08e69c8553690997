"""Structured output, tools, log-probabilities and several answers, by the official client.

The bundled model knows no tools; what it must write, its grammar sees to. The echo writes what its
prompt says, so that every format can be seen.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.system.server import Server
from tests.unit.shapes.calls_written import WRITERS

HI: list[Any] = [{"role": "user", "content": "Who are you?"}]
CALLS = [
    {"name": "weather", "arguments": {"city": "Köln ☔", "days": 3}},
    {"name": "clock", "arguments": {}},
]


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=8)
    kind: Literal["human", "robot"]
    age: int = pydantic.Field(ge=0, le=150)


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS: list[Any] = [
    tool("weather", city={"type": "string", "maxLength": 10}, days={"enum": [1, 2, 3]}),
    tool("clock"),
]
FLAT: list[Any] = [{"type": "function", **one["function"], "strict": True} for one in TOOLS]


def gathered(chunks: Iterable[ChatCompletionChunk]) -> tuple[str, list[dict[str, Any]], str | None]:
    """Text, calls and the reason of the end of a streamed answer."""
    text, reason = "", None
    calls: list[dict[str, Any]] = []
    for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for delta in choice.delta.tool_calls or ():
                assert delta.function is not None
                if delta.id is not None:
                    assert delta.index == len(calls)
                    calls.append({"id": delta.id, "name": delta.function.name, "arguments": ""})
                calls[delta.index]["arguments"] += delta.function.arguments or ""
    return text, calls, reason


# structured output


def test_a_pydantic_model_comes_back(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.parse(
        model="pilot", messages=HI, response_format=Person, temperature=1.0, seed=1
    )
    assert isinstance(answer.choices[0].message.parsed, Person)
    assert answer.choices[0].finish_reason == "stop"
    response = openai_client.responses.parse(model="pilot", input="Who?", text_format=Person)
    assert isinstance(response.output_parsed, Person)
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_schema"


def test_other_forms(openai_client: openai.OpenAI) -> None:
    chat = openai_client.chat.completions.create
    number = chat(model="pilot", messages=HI, extra_body={"llmos": {"regex": "[0-9]{3}-[a-c]+"}})
    assert (number.choices[0].message.content or "")[3] == "-"
    word = chat(
        model="pilot", messages=HI, extra_body={"llmos": {"grammar": 'start: "yes" | "no"'}}
    )
    assert word.choices[0].message.content in {"yes", "no"}
    text = openai_client.completions.create(
        model="pilot",
        prompt="A list:",
        max_tokens=50,
        extra_body={"llmos": {"json_schema": {"type": "array", "maxItems": 2}}},
    )
    assert text.choices[0].text.startswith("[")
    thing = chat(
        model="pilot", messages=HI, response_format={"type": "json_object"}, max_tokens=200
    )
    assert (thing.choices[0].message.content or "").startswith("{")


BAD: list[dict[str, Any]] = [
    {"$ref": "#"},
    {"type": "poem"},
    {"type": "array", "uniqueItems": True},
    {"type": "object", "properties": {f"k{i}": {"pattern": "a.*b"} for i in range(2000)}},
]


@pytest.mark.parametrize("schema", BAD, ids=lambda s: str(s)[:40])
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_is_a_400_at_once(
    openai_client: openai.OpenAI, schema: dict[str, Any], stream: bool
) -> None:
    began = time.monotonic()
    with pytest.raises(openai.BadRequestError) as raised:
        openai_client.chat.completions.create(
            model="pilot",
            messages=HI,
            stream=stream,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": schema, "strict": True},
            },
        )
    assert raised.value.code == "invalid_request"
    assert raised.value.param == "grammar"
    assert time.monotonic() - began < 5


def test_who_cannot_says_so(openai_client: openai.OpenAI) -> None:
    """The echo has no grammars and no logits."""
    chat = openai_client.chat.completions.create
    for fields in (
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"5": 1}},
        {"tools": TOOLS, "response_format": {"type": "json_object"}},
    ):
        with pytest.raises(openai.BadRequestError) as raised:
            chat(model="echo", messages=HI, **fields)  # type: ignore[call-overload]
        assert raised.value.code == "unsupported_parameter"
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    with pytest.raises(openai.BadRequestError, match="reads text only") as raised:
        chat(model="pilot", messages=[{"role": "user", "content": picture}])  # type: ignore[list-item]
    assert raised.value.code == "unsupported_parameter"


# tools


def test_a_required_call_and_its_answer(openai_client: openai.OpenAI) -> None:
    chat = openai_client.chat.completions.create
    asked: dict[str, Any] = {"model": "pilot", "tools": TOOLS, "temperature": 1.0, "seed": 3}
    made = chat(messages=HI, tool_choice="required", **asked)
    assert made.choices[0].finish_reason == "tool_calls"
    calls = made.choices[0].message.tool_calls or []
    assert calls
    for call in calls:
        assert call.type == "function"
        arguments = json.loads(call.function.arguments)
        expected = {"weather": {"city", "days"}, "clock": set()}[call.function.name]
        assert arguments.keys() == expected
    said = [{"role": "tool", "tool_call_id": call.id, "content": "It is noon."} for call in calls]
    again = chat(
        messages=[*HI, made.choices[0].message.to_dict(), *said],  # type: ignore[list-item]
        **(asked | {"max_tokens": 20}),
    )
    assert again.usage is not None
    assert made.usage is not None
    assert again.usage.prompt_tokens > made.usage.prompt_tokens


def test_a_named_call_streamed_and_not(openai_client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "pilot",
        "messages": HI,
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "temperature": 1.0,
        "seed": 5,
    }
    whole = openai_client.chat.completions.create(**asked).choices[0]
    assert whole.message.content is None
    (call,) = whole.message.tool_calls or ()
    assert call.type == "function"
    text, calls, reason = gathered(openai_client.chat.completions.create(stream=True, **asked))
    assert (text, reason) == ("", "tool_calls")
    assert [(c["name"], c["arguments"]) for c in calls] == [("weather", call.function.arguments)]


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_every_format_streamed_and_not(openai_client: openai.OpenAI, form: str) -> None:
    written = WRITERS[form](CALLS)
    asked: dict[str, Any] = {
        "model": "echo",
        "messages": [{"role": "user", "content": written}],
        "tools": TOOLS,
        "extra_body": {"llmos": {"tool_format": form}},
    }
    whole = openai_client.chat.completions.create(**asked).choices[0]
    found = [c.function for c in whole.message.tool_calls or () if c.type == "function"]
    assert [{"name": f.name, "arguments": json.loads(f.arguments)} for f in found] == CALLS
    text, calls, reason = gathered(openai_client.chat.completions.create(stream=True, **asked))
    assert (text, reason, whole.finish_reason) == ("", "tool_calls", "tool_calls")
    assert [(c["name"], c["arguments"]) for c in calls] == [(f.name, f.arguments) for f in found]
    none = openai_client.chat.completions.create(tool_choice="none", **asked).choices[0]
    assert (none.message.content, none.finish_reason) == (written, "stop")
    one = openai_client.chat.completions.create(parallel_tool_calls=False, **asked).choices[0]
    assert len(one.message.tool_calls or ()) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_responses_call_and_go_on(openai_client: openai.OpenAI, stream: bool) -> None:
    written = "Let me look.\n" + WRITERS["hermes"](CALLS)
    asked: dict[str, Any] = {"model": "echo", "input": written, "tools": FLAT}
    if stream:
        with openai_client.responses.stream(**asked) as events:
            kinds = [event.type for event in events]
            made = events.get_final_response()
        assert kinds.count("response.function_call_arguments.done") == len(CALLS)
        assert kinds[-1] == "response.completed"
    else:
        made = openai_client.responses.create(**asked)
    assert made.output_text == "Let me look."
    calls = [item for item in made.output if item.type == "function_call"]
    assert [{"name": c.name, "arguments": json.loads(c.arguments)} for c in calls] == CALLS
    kept = openai_client.responses.retrieve(made.id)
    assert [item.id for item in kept.output] == [item.id for item in made.output]
    assert [i.arguments for i in kept.output if i.type == "function_call"] == [
        call.arguments for call in calls
    ]
    answers: list[Any] = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "noon"}
        for call in calls
    ]
    again = openai_client.responses.create(
        model="echo", input=answers, previous_response_id=made.id, tools=FLAT
    )
    assert again.output_text == "noon"
    items = openai_client.responses.input_items.list(again.id, order="asc").data
    assert [item.type for item in items] == [
        "message",
        "message",
        *["function_call"] * 2,
        *["function_call_output"] * 2,
    ]


def test_a_response_in_the_background_calls_too(openai_client: openai.OpenAI) -> None:
    written = WRITERS["hermes"](CALLS)
    events = list(
        openai_client.responses.create(
            model="echo", input=written, tools=FLAT, background=True, stream=True
        )
    )
    done = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert [json.loads(e.arguments) for e in done] == [c["arguments"] for c in CALLS]
    assert events[-1].type == "response.completed"
    assert [item.type for item in events[-1].response.output] == ["function_call"] * 2
    assert [e.sequence_number for e in events] == list(range(len(events)))


# log-probabilities, bias, several answers


def test_logprobs(openai_client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "pilot",
        "messages": HI,
        "logprobs": True,
        "top_logprobs": 3,
        "temperature": 0,
        "max_tokens": 12,
    }
    whole = openai_client.chat.completions.create(**asked).choices[0]
    assert whole.logprobs is not None
    found = whole.logprobs.content or []
    assert b"".join(bytes(t.bytes or []) for t in found).decode() == whole.message.content
    for token in found:
        assert token.top_logprobs[0].logprob == token.logprob <= 0
        assert sum(math.exp(t.logprob) for t in token.top_logprobs) <= 1.0001
    streamed = [
        token
        for chunk in openai_client.chat.completions.create(stream=True, **asked)
        for choice in chunk.choices
        for token in (choice.logprobs.content or [] if choice.logprobs else [])
    ]
    assert streamed == found
    text = openai_client.completions.create(
        model="pilot", prompt="Hello", logprobs=2, max_tokens=5, temperature=0
    ).choices[0]
    assert text.logprobs is not None
    assert "".join(text.logprobs.tokens or []) == text.text
    assert [len(top) for top in text.logprobs.top_logprobs or []] == [2] * 5
    response = openai_client.responses.create(
        model="pilot",
        input="Hello",
        max_output_tokens=5,
        include=["message.output_text.logprobs"],
        top_logprobs=1,
    )
    part = response.output[0].to_dict()["content"][0]  # type: ignore[index]
    assert len(part["logprobs"]) == 5


def test_bias(openai_client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "pilot", "messages": HI, "max_tokens": 4, "temperature": 0}
    free = openai_client.chat.completions.create(**asked, extra_body={"return_token_ids": True})
    first = free.choices[0].to_dict()["token_ids"][0]  # type: ignore[index]
    biased = openai_client.chat.completions.create(
        **asked, logit_bias={str(first): -100}, extra_body={"return_token_ids": True}
    )
    assert first not in biased.choices[0].to_dict()["token_ids"]  # type: ignore[operator]


def test_several_answers(openai_client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "pilot",
        "messages": HI,
        "n": 3,
        "temperature": 1.8,
        "max_tokens": 24,
        "seed": 1,
    }
    whole = openai_client.chat.completions.create(**asked)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    one = openai_client.chat.completions.create(**(asked | {"n": 1}))
    assert whole.usage is not None
    assert one.usage is not None
    assert whole.usage.prompt_tokens == one.usage.prompt_tokens
    assert one.choices[0].message.content == texts[0]
    streamed = ["", "", ""]
    usage = None
    for chunk in openai_client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **asked
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
    assert usage is not None
    assert usage.to_dict() == whole.usage.to_dict() | {
        "prompt_tokens_details": usage.to_dict()["prompt_tokens_details"]
    }
    answers = openai_client.completions.create(model="echo", prompt=["ab", "cd"], n=2, max_tokens=1)
    assert [choice.text for choice in answers.choices] == ["a", "a", "c", "c"]
    assert answers.usage is not None
    assert answers.usage.prompt_tokens == 4


def test_a_broken_stream_of_calls_goes_on(server: Server) -> None:
    """The calls are read from their beginning again, and nothing is said twice."""
    body = {
        "model": "echo",
        "messages": [{"role": "user", "content": WRITERS["hermes"](CALLS)}],
        "tools": TOOLS,
        "stream": True,
        "llmos": {"resume_s": 30},
    }
    with server.client() as client:
        whole = client.post("/v1/chat/completions", json=body).text.split("\n\n")
        ids = [block.split("\n")[0] for block in whole if block.startswith("id: ")]
        middle = ids[len(ids) // 2].removeprefix("id: ")
        rest = client.post(
            "/v1/chat/completions", json=body, headers={"last-event-id": middle}
        ).text.split("\n\n")
        at = next(i for i, block in enumerate(whole) if block.startswith(f"id: {middle}\n"))
        assert [b for b in rest if b.startswith("id: ")][:-1] == [
            b for b in whole[at + 1 :] if b.startswith("id: ")
        ][:-1]
