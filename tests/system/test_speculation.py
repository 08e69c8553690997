"""A draft model through the real server: asked for, shown, counted, refused, and given up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.server import Server
from tests.system.test_cli import until_unloaded

DEADLINE_S = 30.0


@pytest.fixture
def tale(server: Server, test_data: Path) -> Iterator[str]:
    """And tale-int8, of the same tokens, which is smaller."""
    source = f"file:{test_data}/models/stories260k"
    assert server.cli("pull", source, "--name", "tale").returncode == 0
    made = server.cli("quantize", "tale", "--to", "int8")
    assert made.returncode == 0, made.stderr
    yield "tale"
    with server.client() as client:
        for name in ("tale", "tale-int8"):
            client.post(f"/os/v1/models/{name}/unload")
            until_unloaded(client, name)
    assert server.cli("rm", "tale-int8", "--yes").returncode == 0


def _complete(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    body = {"model": "tale", "prompt": "Once upon a time", "max_tokens": 120} | fields
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    choices: dict[str, Any] = answer.json()["choices"][0]
    return choices


def _replica(client: httpx.Client) -> dict[str, Any]:
    replicas = client.get("/os/v1/replicas").json()["replicas"]
    return next(r for r in replicas if r["model"] == "tale:1")


def _wait_for_guesses(client: httpx.Client) -> dict[str, Any]:
    """Workers tell now and then."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := _replica(client))["num_guessed"]:
        assert time.monotonic() < deadline, "no guess was told"
    return found


def test_a_draft_is_asked_for_used_shown_and_given_up(server: Server, tale: str) -> None:
    loaded = server.cli("load", tale, "--draft", "tale-int8")
    assert loaded.returncode == 0, loaded.stderr
    assert "tale-int8:1 guesses ahead for it" in loaded.stdout
    shown = json.loads(server.cli("show", tale, "--json").stdout)
    assert shown["loaded_as"].endswith("tale-int8:1 guesses ahead for it")
    asked: list[dict[str, Any]] = [{"temperature": 0}, {"temperature": 0.8, "seed": 3}]
    off = {"llmos": {"driver": {"guesses": False}}}
    with server.client() as client:
        for fields in asked:
            assert _complete(client, **fields) == _complete(client, **fields, **off)
        replica = _wait_for_guesses(client)
        assert replica["draft"] == "tale-int8:1"
        assert 0 < replica["num_accepted"] <= replica["num_guessed"]
        page = client.get("/metrics").text
        line = 'vllm:spec_decode_num_accepted_tokens_total{model_name="tale:1"} '
        assert float(page.split(line)[1].splitlines()[0]) > 0
        refused = client.delete("/os/v1/models/tale-int8")
        assert refused.status_code == 409
        wrong = _refused(client, {"llmos": {"driver": {"guess": 1}}})
        assert wrong["param"] == "llmos.driver"
    assert "guessed ahead by tale-int8:1" in server.cli("ps", "--memory").stdout
    assert server.cli("unload", tale).returncode == 0
    assert server.cli("load", tale).returncode == 0
    with server.client() as client:
        replicas = client.get("/os/v1/replicas").json()["replicas"]
    assert {r["draft"] for r in replicas if r["model"] == "tale:1" and r["state"] == "ready"} == {
        ""
    }


def _refused(client: httpx.Client, fields: dict[str, Any]) -> dict[str, Any]:
    body = {"model": "tale", "prompt": "Once", "max_tokens": 3} | fields
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 400
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_what_cannot_guess(server: Server, tale: str) -> None:
    with server.client() as client:

        def load(model: str, draft: str) -> tuple[int, str]:
            answer = client.post(f"/os/v1/models/{model}/load", json={"draft": draft})
            return answer.status_code, answer.json()["error"]["message"]

        status, message = load("tale", "pilot")
        assert status >= 400 and "another vocabulary" in message
        status, message = load("tale-int8", "tale")
        assert status >= 400 and "is larger than the model it is to guess for" in message
        assert load("tale", "nobody")[0] == 404
        assert load("tale", "tale") == (400, "tale:1 cannot guess ahead for itself")
        assert load("echo", "tale")[0] == 400
        assert load("tale", "echo")[0] == 400
        # and none of it stuck
        assert _complete(client, max_tokens=3)["finish_reason"] == "length"
        assert _replica(client)["draft"] == ""
