"""A real trained model through the whole system: the golden text, alone and in company."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.server import Server

NUM_TOKENS = 199


@pytest.fixture(scope="module")
def golden(test_data: Path) -> dict[str, Any]:
    text = (test_data / "models" / "stories260k" / "golden.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def stories(server: Server, test_data: Path) -> Iterator[httpx.Client]:
    """An httpx client of a server that has pulled stories260k by the CLI."""
    pulled = server.cli("pull", f"file:{test_data}/models/stories260k", "--json")
    assert pulled.returncode == 0, pulled.stderr
    with server.client() as client:
        yield client


def ask(prompt: Any, max_tokens: int = NUM_TOKENS, **fields: Any) -> dict[str, Any]:
    return {
        "model": "stories260k",
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "return_token_ids": True,
        **fields,
    }


def complete(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_golden_text_alone(stories: httpx.Client, golden: dict[str, Any]) -> None:
    answer = complete(stories, ask([1]))
    (choice,) = answer["choices"]
    assert choice["token_ids"] == golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]
    assert golden["text"].startswith(choice["text"])
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["prompt_tokens"] == 1
    assert answer["usage"]["completion_tokens"] == NUM_TOKENS
    assert answer["llmos"]["deterministic"] is True


def test_the_golden_text_over_sse(stories: httpx.Client, golden: dict[str, Any]) -> None:
    text, ids, finish, usage = "", [], None, None
    body = ask([1], stream=True, stream_options={"include_usage": True})
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
    assert ids == golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]
    assert golden["text"].startswith(text)
    assert finish == "length"
    assert usage["completion_tokens"] == NUM_TOKENS


def test_the_golden_text_among_sixteen(
    server: Server, stories: httpx.Client, golden: dict[str, Any]
) -> None:
    """Neighbours of other lengths, sampled and greedy, that join and leave at other steps."""
    prompts = ["Once upon a time", "Lily wanted a red ball.", "你好", [1, 403, 407]]
    others = [
        ask(prompts[i % 4], max_tokens=20 + 11 * i, temperature=(i % 3) * 0.7, seed=i)
        for i in range(15)
    ]
    with ThreadPoolExecutor(16) as pool, server.client() as client:
        gate = threading.Barrier(16)

        def run(body: dict[str, Any]) -> dict[str, Any]:
            gate.wait(30)
            return complete(client, body)

        waiting = [pool.submit(run, body) for body in [*others[:8], ask([1]), *others[8:]]]
        answers = [future.result() for future in waiting]
    assert (
        answers[8]["choices"][0]["token_ids"]
        == (golden["ids_after_bos_numpy_reference"][:NUM_TOKENS])
    )
    alone = complete(stories, others[3])  # and each neighbour is itself, too
    assert alone["choices"][0]["token_ids"] == answers[3]["choices"][0]["token_ids"]


def test_what_the_tokenizer_says_of_chinese(stories: httpx.Client, golden: dict[str, Any]) -> None:
    for text, ids in golden["encode_examples"].items():
        answer = complete(stories, ask(text, max_tokens=1))
        assert answer["usage"]["prompt_tokens"] == len(ids), text


def test_a_prompt_that_does_not_fit_is_refused(stories: httpx.Client) -> None:
    answer = stories.post("/v1/completions", json=ask([5] * 400, max_tokens=200))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "512" in error["message"]


def test_a_model_without_a_chat_template_says_where_to_go(stories: httpx.Client) -> None:
    body = {"model": "stories260k", "messages": [{"role": "user", "content": "Hi"}]}
    answer = stories.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "/v1/completions" in answer.json()["error"]["message"]


def test_a_stop_string_ends_the_answer(stories: httpx.Client) -> None:
    answer = complete(stories, ask([1], stop=[" red ball"]))
    (choice,) = answer["choices"]
    assert choice["text"].endswith("she saw a big,")
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] == " red ball"
