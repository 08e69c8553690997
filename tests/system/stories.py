"""stories260k through the whole system, whoever reads it: the text that is known of it."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.system.server import Server
from tests.system.test_faults import worker_of

NUM_TOKENS = 199
PROMPTS: list[Any] = ["Once upon a time", "Lily wanted a red ball.", "你好", [1, 403, 407]]


def ask(model: str, prompt: Any, max_tokens: int = NUM_TOKENS, **fields: Any) -> dict[str, Any]:
    """The body of a completion, greedy unless `fields` say otherwise."""
    return {
        "model": model,
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


def expected_ids(golden: dict[str, Any]) -> list[int]:
    """After the token that begins a text."""
    found: list[int] = golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]
    return found


def check_alone(client: httpx.Client, model: str, golden: dict[str, Any]) -> dict[str, Any]:
    """The golden text, all of it; the whole answer for more."""
    answer = complete(client, ask(model, [1]))
    (choice,) = answer["choices"]
    assert choice["token_ids"] == expected_ids(golden)
    assert golden["text"].startswith(choice["text"])
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == NUM_TOKENS
    return answer


def check_among(server: Server, model: str, golden: dict[str, Any], num_others: int) -> Any:
    """The golden text beside others of other lengths, sampled and greedy, that come and go at other
    steps. One of these, a greedy one: what was asked, and the answer."""
    others = [
        ask(model, PROMPTS[i % 4], max_tokens=20 + 11 * i, temperature=(i % 3) * 0.7, seed=i)
        for i in range(num_others)
    ]
    with ThreadPoolExecutor(num_others + 1) as pool, server.client() as client:
        gate = threading.Barrier(num_others + 1)

        def run(body: dict[str, Any]) -> dict[str, Any]:
            gate.wait(30)
            return complete(client, body)

        half = num_others // 2
        bodies = [*others[:half], ask(model, [1]), *others[half:]]
        answers = [future.result() for future in [pool.submit(run, body) for body in bodies]]
    assert answers[half]["choices"][0]["token_ids"] == expected_ids(golden)
    return others[0], answers[0]


def check_started_again(client: httpx.Client, model: str, golden: dict[str, Any]) -> None:
    """A worker that is killed costs at most the request on its way to it."""
    complete(client, ask(model, [1], max_tokens=5))
    os.kill(worker_of(client, model), signal.SIGKILL)
    answer = client.post("/v1/completions", json=ask(model, [1]))
    if answer.status_code != 200:
        assert answer.json()["error"]["code"] == "worker_lost"
        answer = client.post("/v1/completions", json=ask(model, [1]))
    (choice,) = answer.json()["choices"]
    assert choice["token_ids"] == expected_ids(golden)
