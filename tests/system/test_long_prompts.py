"""Prompts of megabytes at a real server: whoever sends them waits for them, nobody else does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait

import httpx

from tests.system.server import Server

NUM_LONG = 3


def complete(server: Server, prompt: str) -> httpx.Response:
    with server.client() as client:
        body = {"model": "pilot", "prompt": prompt, "max_tokens": 1}
        return client.post("/v1/completions", json=body, timeout=120)


def test_a_short_prompt_does_not_wait_for_long_ones(server: Server) -> None:
    complete(server, "Hello").raise_for_status()
    with ThreadPoolExecutor(NUM_LONG) as pool:
        text = "What a long story 长 this is! " * 60_000  # a second or two of a tokenizer each
        long = [pool.submit(complete, server, text) for _ in range(NUM_LONG)]
        wait(long, return_when="FIRST_COMPLETED")  # the others are at work, or behind it
        complete(server, "Hello").raise_for_status()
        assert not all(one.done() for one in long)
        codes = [one.result().json()["error"]["code"] for one in long]
    assert codes == ["context_length_exceeded"] * NUM_LONG
