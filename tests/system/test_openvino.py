"""An OpenVINO model through the whole system; and what is said where its engine is missing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.drivers.catalog import find_missing
from tests.system.server import Server
from tests.system.test_faults import worker_of
from tests.unit.openvino_file import make_openvino
from tests.unit.openvino_model import convert

NUM_TOKENS = 199
MODEL = "stories-ov"


@pytest.fixture(scope="module")
def golden(test_data: Path) -> dict[str, Any]:
    text = (test_data / "models" / "stories260k" / "golden.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def stories(
    server: Server,
    test_data: Path,
    require: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    """A client of a server that has pulled the converted model by the CLI."""
    require("openvino")
    folder = tmp_path_factory.mktemp("converted")
    convert(test_data / "models" / "stories260k", folder)
    pulled = server.cli("pull", str(folder), "--name", MODEL, "--json")
    assert pulled.returncode == 0, pulled.stderr
    with server.client() as client:
        yield client


def ask(prompt: Any, max_tokens: int = NUM_TOKENS, **fields: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
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


def test_without_the_engine_the_install_is_named(server: Server, tmp_path: Path) -> None:
    if find_missing("openvino") is None:
        pytest.skip("OpenVINO GenAI is installed here")
    pulled = server.cli("pull", str(make_openvino(tmp_path)), "--name", "none")
    assert pulled.returncode != 0
    assert "pip install 'llmos[openvino]'" in pulled.stderr


def test_a_damaged_model_is_refused(server: Server, tmp_path: Path) -> None:
    weights = make_openvino(tmp_path) / "openvino_model.bin"
    weights.write_bytes(weights.read_bytes()[:20])
    pulled = server.cli("pull", str(tmp_path), "--name", "damaged")
    assert pulled.returncode != 0
    assert "ends at byte 32 of 20" in pulled.stderr


def test_the_golden_text_alone(stories: httpx.Client, golden: dict[str, Any]) -> None:
    answer = complete(stories, ask([1]))
    (choice,) = answer["choices"]
    assert choice["token_ids"] == golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]
    assert golden["text"].startswith(choice["text"])
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == NUM_TOKENS


def test_what_is_shown_of_it(server: Server, stories: httpx.Client) -> None:
    shown = json.loads(server.cli("show", MODEL, "--json").stdout)
    assert (shown["driver"], shown["format"], shown["dtype"]) == ("openvino", "openvino", "float32")
    assert "is read by OpenVINO" in server.cli("show", MODEL).stdout


def test_the_golden_text_among_eight(stories: httpx.Client, golden: dict[str, Any]) -> None:
    prompts = ["Once upon a time", "Lily wanted a red ball.", "你好", [1, 403, 407]]
    others = [
        ask(prompts[i % 4], max_tokens=20 + 11 * i, temperature=(i % 3) * 0.7, seed=i)
        for i in range(7)
    ]
    with ThreadPoolExecutor(8) as pool:
        bodies = [*others[:4], ask([1]), *others[4:]]
        answers = [*pool.map(lambda body: complete(stories, body), bodies)]
    (choice,) = answers[4]["choices"]
    assert choice["token_ids"] == golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]


def test_what_it_cannot_do_is_refused(stories: httpx.Client) -> None:
    for fields in ({"logprobs": 2}, {"logit_bias": {"5": 1.0}}, {"frequency_penalty": 1.0}):
        answer = stories.post("/v1/completions", json=ask([1], 3, **fields))
        expected = 200 if "frequency_penalty" in fields else 400
        assert answer.status_code == expected, answer.text


def test_a_dead_worker_is_started_again(stories: httpx.Client, golden: dict[str, Any]) -> None:
    complete(stories, ask([1], max_tokens=5))
    os.kill(worker_of(stories, MODEL), signal.SIGKILL)
    answer = stories.post("/v1/completions", json=ask([1]))
    if answer.status_code != 200:  # it was on its way into the dead one
        assert answer.json()["error"]["code"] == "worker_lost"
        answer = stories.post("/v1/completions", json=ask([1]))
    (choice,) = answer.json()["choices"]
    assert choice["token_ids"] == golden["ids_after_bos_numpy_reference"][:NUM_TOKENS]
