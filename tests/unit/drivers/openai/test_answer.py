from __future__ import annotations

import json
from typing import Any

import pytest

from llmos.abi.events import FinishReason
from llmos.abi.inference import Usage
from llmos.drivers.openai.answer import Answer
from llmos.drivers.openai.faults import Fault, of_status
from llmos.errors import ContextLengthExceeded, InvalidRequest, RemoteFailed


def read(*chunks: Any, done: bool = True) -> tuple[str, Answer]:
    answer = Answer("host:443", ["sk-secret"])
    text = "".join(answer.take(json.dumps(chunk).encode()) for chunk in chunks)
    return text + (answer.take(b" [DONE]") if done else ""), answer


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def test_a_stream() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}
    text, answer = read(
        delta(role="assistant", content=""),
        delta(content="Hello"),
        {"choices": [{"index": 1, "delta": {"content": "another"}}]},
        delta(content=" you"),
        delta("length"),
        {"choices": [], "usage": usage},
    )
    assert text == "Hello you"
    assert answer.reason is FinishReason.LENGTH
    assert answer.usage == Usage(5, 2)
    assert answer.has_ended()


def test_a_whole_answer() -> None:
    body = {
        "choices": [{"message": {"content": "all"}, "finish_reason": "stop", "stop_reason": "\n"}],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }
    answer = Answer("host:443", [])
    assert answer.take_whole(json.dumps(body).encode()) == "all"
    assert (answer.reason, answer.stop) == (FinishReason.STOP, "\n")
    assert answer.usage == Usage(5, 2, 4)


def test_a_character_in_two_halves() -> None:
    answer = Answer("h:1", [])
    first = answer.take(rb'{"choices": [{"text": "a\ud83d"}]}')
    second = answer.take(rb'{"choices": [{"text": "\ude42b"}]}')
    assert (first, second) == ("a", "🙂b")
    assert answer.take(rb'{"choices": [{"text": "\ude42\ud83d"}]}') == "\ufffd"
    assert answer.take(rb'{"choices": [{"text": "c"}]}') == "\ufffdc"


def test_calls_of_tools_are_written_out() -> None:
    first = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}}
    second = {"index": 1, "function": {"name": "time"}}
    text, answer = read(
        delta(content="Let me see. "),
        delta(tool_calls=[first]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city": '}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '"Oslo"}'}}]),
        delta(tool_calls=[second]),
        delta("tool_calls"),
    )
    before, *calls = text.split("<tool_call>\n")
    assert before == "Let me see. "
    assert [json.loads(call.removesuffix("\n</tool_call>")) for call in calls] == [
        {"name": "weather", "arguments": {"city": "Oslo"}},
        {"name": "time", "arguments": {}},
    ]
    assert answer.reason is FinishReason.STOP


def test_thoughts_are_marked() -> None:
    text, _ = read(
        delta(reasoning_content="Hm"), delta(reasoning_content="."), delta(content="Yes")
    )
    assert text == "<think>\nHm.\n</think>\n\nYes"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"<html>",
        b"{}",
        b"[" * 100_000,
        b'{"choices": [{"text": 5}]}',
        b'{"error": {"message": "overloaded"}}',
        b'{"error": "sk-secret is wrong"}',
        b'{"error": {"code": 503, "message": "busy"}}',
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(Fault) as caught:
        Answer("host:443", ["sk-secret"]).take(data)
    assert isinstance(caught.value.error, RemoteFailed)
    assert "sk-secret" not in caught.value.error.message
    assert "host:443" in caught.value.error.message


@pytest.mark.parametrize(
    "choices", [None, {}, "x", [None], [5], [{}], [{"delta": 5}], [{"delta": None}]]
)
def test_odd_choices_are_no_text(choices: Any) -> None:
    assert read({"choices": choices, "usage": {"prompt_tokens": -1}}, done=False)[0] == ""


def test_a_filter_is_an_error() -> None:
    with pytest.raises(Fault) as caught:
        read(delta("content_filter"))
    assert caught.value.error.details["cause"] == "filtered"
    assert not caught.value.error.retryable


@pytest.mark.parametrize(
    ("status", "again", "elsewhere", "blames"),
    [
        (429, True, True, False),
        (500, True, True, True),
        (503, True, True, True),
        (505, True, True, True),
        (401, False, True, False),
        (404, False, True, False),
        (302, False, True, False),
        (400, False, False, False),
        (422, False, False, False),
    ],
)
def test_statuses(status: int, again: bool, elsewhere: bool, blames: bool) -> None:
    fault = of_status(status, b'{"error": {"message": "no\\n sk-1"}}', "h:1", 2.0, ["sk-1"])
    assert (fault.again, fault.elsewhere, fault.blames) == (again, elsewhere, blames)
    assert "no ***" in fault.error.message
    assert isinstance(fault.error, RemoteFailed if elsewhere else InvalidRequest)


def test_a_long_prompt() -> None:
    body = b'{"error": {"code": "context_length_exceeded", "message": "too long"}}'
    assert isinstance(of_status(400, body, "h:1", None, []).error, ContextLengthExceeded)


@pytest.mark.parametrize("body", [b"<html><body>nginx</body></html>", b"\xff\xfe\0", b"x" * 99999])
def test_other_bodies_are_said_shortly(body: bytes) -> None:
    message = of_status(502, body, "h:1", None, []).error.message
    assert len(message) < 400
    assert "nginx" not in message
    assert message.isprintable()
