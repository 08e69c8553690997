"""A real trained model through the whole system: the golden text, alone and in company."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.server import Server
from tests.system.stories import NUM_TOKENS, ask, check_alone, check_among, complete, expected_ids

MODEL = "stories260k"


@pytest.fixture(scope="module")
def stories(server: Server, test_data: Path) -> Iterator[httpx.Client]:
    """An httpx client of a server that has pulled stories260k by the CLI."""
    pulled = server.cli("pull", f"file:{test_data}/models/stories260k", "--json")
    assert pulled.returncode == 0, pulled.stderr
    with server.client() as client:
        yield client


def test_the_golden_text_alone(stories: httpx.Client, golden: dict[str, Any]) -> None:
    answer = check_alone(stories, MODEL, golden)
    assert answer["usage"]["prompt_tokens"] == 1
    assert answer["llmos"]["deterministic"] is True


def test_the_golden_text_over_sse(stories: httpx.Client, golden: dict[str, Any]) -> None:
    text, ids, finish, usage = "", [], None, None
    body = ask(MODEL, [1], stream=True, stream_options={"include_usage": True})
    with stories.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    for line in lines[:-1]:
        chunk = json.loads(line.removeprefix("data: "))
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text += choice["text"]
            ids += choice.get("token_ids") or []
            finish = choice["finish_reason"] or finish
    assert ids == expected_ids(golden)
    assert golden["text"].startswith(text)
    assert finish == "length"
    assert usage["completion_tokens"] == NUM_TOKENS


def test_the_golden_text_among_sixteen(
    server: Server, stories: httpx.Client, golden: dict[str, Any]
) -> None:
    asked, answer = check_among(server, MODEL, golden, 15)
    alone = complete(stories, asked)  # and a neighbour is itself, too
    assert alone["choices"][0]["token_ids"] == answer["choices"][0]["token_ids"]


def test_what_the_tokenizer_says_of_chinese(stories: httpx.Client, golden: dict[str, Any]) -> None:
    for text, ids in golden["encode_examples"].items():
        answer = complete(stories, ask(MODEL, text, max_tokens=1))
        assert answer["usage"]["prompt_tokens"] == len(ids), text


def test_a_prompt_that_does_not_fit_is_refused(stories: httpx.Client) -> None:
    answer = stories.post("/v1/completions", json=ask(MODEL, [5] * 400, max_tokens=200))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "512" in error["message"]


def test_a_model_without_a_chat_template_says_where_to_go(stories: httpx.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    answer = stories.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "/v1/completions" in answer.json()["error"]["message"]


def test_a_stop_string_ends_the_answer(stories: httpx.Client) -> None:
    answer = complete(stories, ask(MODEL, [1], stop=[" red ball"]))
    (choice,) = answer["choices"]
    assert choice["text"].endswith("she saw a big,")
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] == " red ball"
