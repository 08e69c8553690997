"""What a request asks beyond its sampling, as a remote is asked for it, and what comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmos.abi.events import UNKNOWN_ID
from llmos.abi.inference import (
    ChatPrompt,
    Grammar,
    Prepared,
    PrepareItem,
    Prompt,
    Sampling,
    TextPrompt,
)
from llmos.abi.remote import Endpoint, RemoteSpec
from llmos.drivers.openai.answer import Answer
from llmos.drivers.openai.body import make_body
from llmos.drivers.openai.faults import Fault
from llmos.drivers.openai.logprobs import read_logprobs
from llmos.drivers.openai.prepare import RemotePreparer
from llmos.drivers.openai.prompt import decode
from llmos.errors import InvalidRequest, RemoteFailed, UnsupportedParameter
from llmos.shapes.inputs import read_chat, read_completions

SPEC = RemoteSpec([Endpoint("https://host/v1", "m")])
PLUS = RemoteSpec([Endpoint("https://host/v1", "m")], extensions=True)
ASK = [{"role": "user", "content": "x"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CHAT, TEXT = ChatPrompt(ASK), TextPrompt("x")
SCHEMA = Grammar("json_schema", '{"type": "array"}')
LENIENT = Grammar("json_schema", '{"type": "array"}', lenient=True)
REGEX, LARK = Grammar("regex", "a+"), Grammar("lark", 'start: "x"')


def body_of(
    prompt: Prompt, spec: RemoteSpec, grammar: Grammar | None = None, **sampling: Any
) -> dict[str, Any]:
    return make_body(prompt, Sampling(**sampling), spec, "", 0, grammar=grammar)[1]


def prepare(prompt: Prompt, spec: RemoteSpec, grammar: Grammar | None = None) -> Prepared:
    return RemotePreparer(spec).prepare(PrepareItem("r", "", "", prompt, 0, grammar))


def test_a_schema_is_anybodys_in_a_chat() -> None:
    strict = {"name": "answer", "strict": True, "schema": {"type": "array"}}
    sent = body_of(CHAT, SPEC, SCHEMA)["response_format"]
    assert sent == {"type": "json_schema", "json_schema": strict}
    sent = body_of(CHAT, SPEC, LENIENT)["response_format"]["json_schema"]
    assert sent == {"name": "answer", "schema": {"type": "array"}}
    sent = body_of(CHAT, SPEC, Grammar("json_schema", '{"type":"object"}'))["response_format"]
    assert sent == {"type": "json_object"}


OTHERS: list[tuple[Prompt, Grammar, dict[str, Any]]] = [
    (TEXT, SCHEMA, {"json": {"type": "array"}}),
    (TEXT, REGEX, {"regex": "a+"}),
    (CHAT, REGEX, {"regex": "a+"}),
    (CHAT, LARK, {"grammar": 'start: "x"'}),
]


@pytest.mark.parametrize(("prompt", "grammar", "sent"), OTHERS)
def test_the_others_are_vllms(prompt: Prompt, grammar: Grammar, sent: dict[str, Any]) -> None:
    body = body_of(prompt, PLUS, grammar)
    assert body["structured_outputs"] == sent
    assert prepare(prompt, PLUS, grammar).grammar == grammar
    with pytest.raises(UnsupportedParameter) as caught:
        prepare(prompt, SPEC, grammar)  # before anything runs
    assert caught.value.param == "grammar"
    with pytest.raises(UnsupportedParameter):
        body_of(prompt, SPEC, grammar)
    read = {"model": "m", "structured_outputs": body["structured_outputs"]}
    if prompt is CHAT:  # an LLMOS that is asked so understands the same
        found = read_chat({**read, "messages": ASK}, 9).to_grammar()
    else:
        found = read_completions({**read, "prompt": "x"}, 9, 9).to_grammar()
    assert found == grammar


def test_a_grammar_that_is_none() -> None:
    for grammar in (Grammar("nothing", ""), Grammar("json_schema", "{")):
        with pytest.raises(InvalidRequest):
            body_of(CHAT, PLUS, grammar)


def test_half_a_structured_answer_does_not_go_on() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        make_body(CHAT, Sampling(), PLUS, "[1,", 9, grammar=SCHEMA)
    assert caught.value.param == "grammar"


def test_bias_and_logprobs_are_openais() -> None:
    asked: dict[str, Any] = {"logit_bias": [(5, 1.5), (7, -100.0)], "logprobs": 3}
    for prompt, wanted in (
        (CHAT, {"logprobs": True, "top_logprobs": 3}),
        (TEXT, {"logprobs": 3}),
    ):
        body = body_of(prompt, SPEC, **asked)
        assert body["logit_bias"] == {"5": 1.5, "7": -100.0}
        assert {name: body[name] for name in wanted} == wanted
        assert "logprobs" not in body_of(prompt, SPEC)
    assert "top_logprobs" not in body_of(CHAT, SPEC, logprobs=0)
    assert body_of(TEXT, SPEC, logprobs=0)["logprobs"] == 0


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {}),
        ({"tool_choice": "none"}, {"tool_choice": "none"}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": "name:f"},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        ({"parallel_tools": False}, {"parallel_tool_calls": False}),
    ],
)
def test_which_tool_is_to_be_called(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    """It goes through `prepare` to the driver, and from there to the remote."""
    prompt = decode(prepare(ChatPrompt(ASK, TOOLS, **fields), SPEC).tokens)
    body = body_of(prompt, SPEC)
    assert body["tools"] == TOOLS
    named = {name: body[name] for name in ("tool_choice", "parallel_tool_calls") if name in body}
    assert named == sent


def test_without_tools_nothing_is_said_of_them() -> None:
    body = body_of(decode(prepare(ChatPrompt(ASK, tool_choice="none"), SPEC).tokens), SPEC)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(body)


def priced(token: str, logprob: float, data: list[int] | None = None, **top: float) -> Any:
    others = [{"token": t, "logprob": p, "bytes": None} for t, p in top.items()]
    return {"token": token, "logprob": logprob, "bytes": data, "top_logprobs": others}


def test_logprobs_of_a_chat() -> None:
    (half, whole) = read_logprobs(
        {"content": [priced("�", -1.0, [0xC3]), priced("b", -2, None, b=-2.0, c=-3.0)]}
    )
    assert (half.drawn.piece, half.drawn.logprob) == (b"\xc3", -1.0)
    assert half.drawn.token_id == UNKNOWN_ID
    assert half.top == []
    assert [(one.piece, one.logprob) for one in whole.top] == [(b"b", -2.0), (b"c", -3.0)]


def test_logprobs_of_a_text() -> None:
    found = read_logprobs(
        {
            "tokens": ["a", "é"],
            "token_logprobs": [-1.0, -2.0],
            "top_logprobs": [{"x": -5.0, "a": -1.0}, None],
            "text_offset": [0, 1],
        }
    )
    assert [(one.drawn.piece, one.drawn.logprob) for one in found] == [
        (b"a", -1.0),
        ("é".encode(), -2.0),
    ]
    assert [[one.piece for one in each.top] for each in found] == [[b"a", b"x"], []]


def test_no_logprobs() -> None:
    assert read_logprobs(None) == []
    assert read_logprobs({"content": None, "refusal": None}) == []


@pytest.mark.parametrize(
    "found",
    [
        5,
        {"content": 5},
        {"content": [5]},
        {"content": [{}]},
        {"content": [{"token": 5, "logprob": 1}]},
        {"content": [{"token": "a", "logprob": "x"}]},
        {"content": [{"token": "a", "logprob": -1, "bytes": [999]}]},
        {"tokens": ["a"], "token_logprobs": []},
        {"tokens": ["a"], "token_logprobs": [None]},
    ],
)
def test_what_are_no_logprobs(found: Any) -> None:
    chunk = {"choices": [{"text": "a", "logprobs": found}]}
    with pytest.raises(Fault) as caught:
        Answer("host:443", []).take(json.dumps(chunk).encode())
    assert isinstance(caught.value.error, RemoteFailed)


def delta(content: str, logprobs: Any = None, **more: Any) -> bytes:
    choice = {"delta": {"content": content, **more}, "logprobs": logprobs}
    return json.dumps({"choices": [choice]}).encode()


def test_an_answer_without_logprobs_is_not_what_was_asked() -> None:
    """Somebody else may do better: nothing has been said yet."""
    answer = Answer("host:443", [], wants_logprobs=True)
    assert answer.take(delta("")) == ""
    call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
    assert answer.take(delta("", tool_calls=[call]))
    with pytest.raises(Fault) as caught:
        answer.take(delta("text"))
    assert isinstance(caught.value.error, UnsupportedParameter)
    assert (caught.value.again, caught.value.elsewhere) == (False, True)


def test_logprobs_are_told_with_their_text() -> None:
    answer = Answer("host:443", [], wants_logprobs=True)
    assert answer.take(delta("", {"content": [priced("�", -1.0, [0xC3])]})) == ""
    assert [one.drawn.piece for one in answer.take_logprobs()] == [b"\xc3"]
    assert answer.take(delta("é", {"content": [priced("�", -1.0, [0xA9])]})) == "é"
    assert [one.drawn.piece for one in answer.take_logprobs()] == [b"\xa9"]
    assert answer.take_logprobs() == []
