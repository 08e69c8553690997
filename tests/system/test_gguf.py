"""A GGUF file through the whole system; and what is said where its engine is not installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.drivers.catalog import find_missing
from tests.system.server import Server
from tests.system.stories import (
    ask,
    check_alone,
    check_among,
    check_started_again,
    complete,
    expected_ids,
)
from tests.system.test_faults import data_of, until

MODEL = "stories260k"


@pytest.fixture(scope="module")
def stories(
    server: Server, test_data: Path, require: Callable[[str], None]
) -> Iterator[httpx.Client]:
    """A client of a server that has pulled the file by the CLI."""
    require("gguf")
    pulled = server.cli("pull", f"file:{test_data}/models/{MODEL}.gguf", "--json")
    assert pulled.returncode == 0, pulled.stderr
    with server.client() as client:
        yield client


def test_without_the_engine_the_install_is_named(server: Server, test_data: Path) -> None:
    if find_missing("gguf") is None:
        pytest.skip("llama.cpp is installed here")
    pulled = server.cli("pull", f"file:{test_data}/models/{MODEL}.gguf")
    assert pulled.returncode != 0
    assert "pip install 'llmos[gguf]'" in pulled.stderr
    assert MODEL not in server.cli("ls").stdout


def test_the_golden_text_alone(stories: httpx.Client, golden: dict[str, Any]) -> None:
    check_alone(stories, MODEL, golden)


def test_what_is_shown_of_it(server: Server, stories: httpx.Client) -> None:
    shown = json.loads(server.cli("show", MODEL, "--json").stdout)
    assert (shown["driver"], shown["format"], shown["dtype"]) == ("gguf", "gguf", "float32")
    listed = server.cli("ls").stdout
    assert "gguf" in listed


@pytest.mark.usefixtures("stories")
def test_the_golden_text_among_eight(server: Server, golden: dict[str, Any]) -> None:
    check_among(server, MODEL, golden, 7)


def test_what_its_vocabulary_says(stories: httpx.Client, golden: dict[str, Any]) -> None:
    for text, ids in golden["encode_examples"].items():
        answer = complete(stories, ask(MODEL, text, max_tokens=1))
        assert answer["usage"]["prompt_tokens"] == len(ids), text


def test_a_chat_without_a_template_is_refused(stories: httpx.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    answer = stories.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "/v1/completions" in answer.json()["error"]["message"]


def live(client: httpx.Client) -> set[str]:
    found = client.get("/os/v1/processes?state=live").json()["processes"]
    return {process["process_id"] for process in found}


def test_suspended_and_resumed_while_it_streams(
    server: Server, stories: httpx.Client, golden: dict[str, Any]
) -> None:
    """Taken out and put back; the client sees one story. Beside others, or it would be over."""
    exact = {"deterministic": True}
    ids: list[int] = []
    num_suspended = 0
    path = ""
    with ThreadPoolExecutor(7) as pool, server.client() as other:
        beside = [
            pool.submit(
                complete, stories, ask(MODEL, [1], 500, seed=n, ignore_eos=True, llmos=exact)
            )
            for n in range(7)
        ]
        until(lambda: len(live(other)) == len(beside))
        known = live(other)
        body = ask(MODEL, [1], stream=True, llmos=exact)
        with stories.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200
            for chunk in data_of(answer.iter_lines()):
                for choice in chunk["choices"]:
                    ids += choice.get("token_ids") or []
                if not path:
                    (process_id,) = live(other) - known
                    path = f"/os/v1/processes/{process_id}"
                if num_suspended < 5 and other.post(f"{path}/suspend").status_code == 200:
                    num_suspended += 1
                    assert other.post(f"{path}/resume").status_code == 200
        assert all(b.result()["usage"]["completion_tokens"] == 500 for b in beside)
    assert ids == expected_ids(golden)
    assert num_suspended > 1
    told = stories.get(path).json()["decisions"]
    assert any("snapshot" in decision["reason"] for decision in told), told


def test_a_dead_worker_is_started_again(stories: httpx.Client, golden: dict[str, Any]) -> None:
    check_started_again(stories, MODEL, golden)
