"""What a request asks of an answer is asked of the remote it is served by: calls of tools, schemas
and other grammars, biases, log-probabilities; and what comes of it is told as the remote does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.system.server import Server

CALL = (
    'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo, é"}}\n</tool_call>'
)
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Oslo", "Bergen"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "map")
]
SCHEMA: Any = {
    "type": "object",
    "properties": {"is_good": {"type": "boolean"}, "kind": {"enum": ["cat", "dog"]}},
    "required": ["is_good", "kind"],
    "additionalProperties": False,
}
FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "animal", "strict": True, "schema": SCHEMA},
}
FAR = {"echo": "far-echo", "pilot": "far-pilot"}
"""Models there, and what they are called here."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Here, and there."""
    there = Server(tmp_path_factory.mktemp("far") / "home").start()
    here = Server(tmp_path_factory.mktemp("near") / "home", env={"FAR_API_KEY": there.token})
    try:
        here.start()
        for model, name in FAR.items():
            for more, fields in (("", {}), ("-plus", {"extensions": True})):
                end: dict[str, Any] = {"url": f"{there.url}/v1", "model": model}
                end["key"] = "FAR_API_KEY"
                if model == "echo":  # so that a stream is one
                    end["extra"] = {"llmos": {"driver": {"delay_ms": 4}}}
                source = f"openai:{there.url}/v1#{model}"
                body = {"source": source, "name": name + more}
                with here.client() as client:
                    remote = {"endpoints": [end], **fields}
                    done = client.post("/os/v1/models", json=body | {"remote": remote})
                assert "event: done" in done.text
        yield here, there
    finally:
        here.kill()
        there.kill()


@pytest.fixture
def here(servers: tuple[Server, Server]) -> Iterator[openai.OpenAI]:
    with servers[0].openai() as client:
        yield client


@pytest.fixture
def there(servers: tuple[Server, Server]) -> Iterator[openai.OpenAI]:
    with servers[1].openai() as client:
        yield client


def ask(client: openai.OpenAI, model: str, text: str = "a dog", **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(
        model=model, messages=messages, temperature=0, **{"max_tokens": 200, **fields}
    )


def test_a_call_of_a_tool(here: openai.OpenAI) -> None:
    (choice,) = ask(here, "far-echo", CALL, tools=TOOLS).choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
    (call,) = choice.message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo, é"}


def test_a_streamed_call_of_a_tool(here: openai.OpenAI) -> None:
    text, ids, names, arguments, reason = "", [], [], [], None
    for chunk in ask(here, "far-echo", CALL, tools=TOOLS, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or ():
                ids += [call.id] if call.id else []
                names += [call.function.name] if call.function.name else []
                arguments.append(call.function.arguments)
    assert (text, names, reason) == ("Let me see.", ["weather"], "tool_calls")
    assert len(ids) == 1
    assert json.loads("".join(arguments)) == {"city": "Oslo, é"}
    assert len(arguments) > 3  # as they come


def test_no_call_where_none_is_wanted(here: openai.OpenAI) -> None:
    (choice,) = ask(here, "far-echo", CALL, tools=TOOLS, tool_choice="none").choices
    assert (choice.finish_reason, choice.message.content) == ("stop", CALL)


def test_the_tool_that_is_named_is_called(here: openai.OpenAI) -> None:
    """The remote is told which: its own grammar makes the call."""
    named: Any = {"type": "function", "function": {"name": "map"}}
    (choice,) = ask(here, "far-pilot", "hello", tools=TOOLS, tool_choice=named).choices
    (call,) = choice.message.tool_calls
    assert call.function.name == "map"
    assert json.loads(call.function.arguments)["city"] in {"Oslo", "Bergen"}


def test_a_schema_holds(here: openai.OpenAI, there: openai.OpenAI) -> None:
    said = ask(here, "far-pilot", response_format=FORMAT).choices[0].message.content
    assert set(json.loads(said)) == {"is_good", "kind"}
    assert said == ask(there, "pilot", response_format=FORMAT).choices[0].message.content
    assert said != ask(here, "far-pilot").choices[0].message.content


@pytest.mark.parametrize("is_chat", [True, False], ids=["chat", "text"])
def test_another_grammar_holds(here: openai.OpenAI, is_chat: bool) -> None:
    more: Any = {"extra_body": {"llmos": {"regex": "(ab){2,3}c"}}}
    for name, is_known in (("far-pilot-plus", True), ("far-pilot", False)):
        try:
            if is_chat:
                said = ask(here, name, **more).choices[0].message.content
            else:
                made = here.completions.create(model=name, prompt="x", temperature=0, **more)
                said = made.choices[0].text
            assert is_known
            assert said in {"ababc", "abababc"}
        except openai.BadRequestError as error:
            assert not is_known
            assert (error.code, error.param) == ("unsupported_parameter", "grammar")


def test_a_remote_that_cannot_says_so(here: openai.OpenAI) -> None:
    """An echo has no grammars: what the remote refuses is told as it was said."""
    with pytest.raises(openai.BadRequestError) as caught:
        ask(here, "far-echo", response_format=FORMAT)
    assert "has no grammar" in caught.value.message


def test_a_bias_is_the_remotes(
    servers: tuple[Server, Server], here: openai.OpenAI, there: openai.OpenAI
) -> None:
    folder = Path(__file__).resolve().parents[2] / "src" / "llmos" / "pilot"
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    bias: Any = {"logit_bias": {str(ids["3"]): 100}, "max_tokens": 5}
    assert ask(here, "far-pilot", **bias).choices[0].message.content == "33333"
    assert ask(there, "pilot", **bias).choices[0].message.content == "33333"


def drawn(choices: list[Any]) -> list[tuple[str, float, bytes, list[tuple[str, float]]]]:
    return [
        (
            one.token,
            pytest.approx(one.logprob),
            bytes(one.bytes),
            [(other.token, pytest.approx(other.logprob)) for other in one.top_logprobs],
        )
        for choice in choices
        if choice.logprobs
        for one in choice.logprobs.content or ()
    ]


def test_log_probabilities_are_the_remotes(here: openai.OpenAI, there: openai.OpenAI) -> None:
    wanted: Any = {"logprobs": True, "top_logprobs": 2, "max_tokens": 12}
    expected = drawn(ask(there, "pilot", "你好", **wanted).choices)
    assert len(expected) > 3
    answer = ask(here, "far-pilot", "你好", **wanted)
    assert drawn(answer.choices) == expected
    streamed: list[Any] = []
    for chunk in ask(here, "far-pilot", "你好", stream=True, **wanted):
        streamed += chunk.choices
    assert drawn(streamed) == expected


def test_log_probabilities_of_a_text(here: openai.OpenAI, there: openai.OpenAI) -> None:
    found = []
    for client, model in ((here, "far-pilot"), (there, "pilot")):
        answer = client.completions.create(
            model=model, prompt="An operating", temperature=0, max_tokens=6, logprobs=2
        )
        (choice,) = answer.choices
        assert choice.logprobs is not None
        assert len(choice.logprobs.tokens or ()) > 2
        found.append(choice.logprobs)
    mine, theirs = found
    assert mine.tokens == theirs.tokens
    assert mine.text_offset == theirs.text_offset
    assert mine.token_logprobs == pytest.approx(theirs.token_logprobs)
