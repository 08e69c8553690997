"""`llmos models …`, and names of the catalogue where a model is asked for."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.unit.cli.conftest import Run
from tests.unit.sdk.fake import MODEL, Server, refusal, sse


def test_search_and_info_need_no_server(llmos: Run) -> None:
    found = llmos("models", "search", "bge", "--task", "embed", "--language", "zh", "--json")
    assert [entry["name"] for entry in found.json["models"]] == ["bge-small-zh", "bge-base-zh"]
    assert "BAAI/bge-small-zh-v1.5" in llmos("models", "info", "bge-small-zh").out
    assert llmos("models", "info", "qwen3-0.6b", "--json").json["license"] == "Apache-2.0"
    assert "none is known" in llmos("models", "search", "nothing such").err


def test_what_the_catalogue_does_not_know(llmos: Run) -> None:
    done = llmos("models", "info", "qwen3-0.7b")
    assert done.code == 1
    assert "qwen3-0.6b" in done.err
    assert llmos("models", "search", "--task", "dance").code == 1


def test_info_says_what_to_try(llmos: Run) -> None:
    assert "llmos pull bge-small-zh" in llmos("models", "info", "bge-small-zh").out
    assert "llmos run qwen3-0.6b" in llmos("models", "info", "qwen3-0.6b").out
    own = llmos("models", "info", "sentiment").out
    assert "llmos task classify -m sentiment --text" in own
    assert " MB in 16 bits" in own
    assert "pip install 'llmos[gguf]'" in llmos("models", "info", "qwen3-0.6b-gguf").out


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("qwen3-0.7b", "did you mean qwen3-"),
        ("nosuch", "`llmos models search` lists what it has"),
        ("org/name", "'hf:org/name'"),
    ],
)
def test_pull_says_what_a_bare_name_lacks(
    llmos: Run, server: Server, source: str, says: str
) -> None:
    done = llmos("pull", source)
    assert done.code == 1
    assert says in done.err
    assert not server.requests


def _pulled(server: Server) -> None:
    body = sse(MODEL, event="done")
    server.routes["POST /os/v1/models"] = httpx.Response(200, content=body)
    server.routes["POST /v1/chat/completions"] = refusal(400, "invalid_request")


def _asked(server: Server) -> list[object]:
    return [json.loads(r.content) for r in server.requests if r.url.path == "/os/v1/models"]


def test_a_name_of_the_catalogue_is_pulled_by_name(llmos: Run, server: Server) -> None:
    _pulled(server)
    llmos("pull", "qwen3-0.6b", "--json")
    assert _asked(server) == [{"source": "hf:Qwen/Qwen3-0.6B", "name": "qwen3-0.6b"}]


def test_run_pulls_what_is_not_here_yet(llmos: Run, server: Server) -> None:
    _pulled(server)
    server.routes["GET /os/v1/models/qwen3-0.6b"] = refusal(404, "model_not_found")
    llmos("run", "qwen3-0.6b", "hi", "--json")
    assert _asked(server) == [{"source": "hf:Qwen/Qwen3-0.6B", "name": "qwen3-0.6b"}]


def test_run_pulls_nothing_for_a_name_that_nobody_knows(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/models/nobody"] = refusal(404, "model_not_found")
    assert llmos("run", "nobody", "hi").code == 1
    assert _asked(server) == []
