"""Hostile and broken input to the real server: a typed 4xx at once, and the server unharmed."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.server import Server

MESSAGES = [{"role": "user", "content": "x"}]
CHAT: dict[str, Any] = {"model": "echo", "messages": MESSAGES}


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "ecco"}, 404, "model_not_found", "model"),
        ({"model": 7}, 400, "invalid_request", "model"),
        ({"messages": []}, 400, "invalid_request", "messages"),
        ({"messages": [{"role": "user"}]}, 400, "invalid_request", "messages"),
        ({"temperature": -0.1}, 400, "invalid_request", "temperature"),
        ({"temperature": 1e308}, 400, "invalid_request", "temperature"),
        ({"top_p": 1.5}, 400, "invalid_request", "top_p"),
        ({"max_tokens": -1}, 400, "invalid_request", "max_tokens"),
        ({"max_tokens": 10**30}, 400, "invalid_request", "max_tokens"),
        ({"max_tokens": 10**8}, 400, "context_length_exceeded", "messages"),
        ({"seed": 2**80}, 400, "invalid_request", "seed"),
        ({"n": 0}, 400, "invalid_request", "n"),
        ({"logprobs": "yes"}, 400, "invalid_request", "logprobs"),
        ({"logprobs": True, "top_logprobs": 99}, 400, "invalid_request", "top_logprobs"),
        ({"tempreature": 1}, 400, "unknown_parameter", "tempreature"),
        ({"llmos": {"clas": "batch"}}, 400, "unknown_parameter", "llmos.clas"),
        ({"llmos": {"nice": 99}}, 400, "invalid_request", "llmos.nice"),
        ({"llmos": {"driver": {"tokns": 1}}}, 400, "unsupported_parameter", "llmos.driver"),
        ({"llmos": {"driver": {"per_step": 0}}}, 400, "unsupported_parameter", "llmos.driver"),
        ({"llmos": {"driver": {"delay_ms": 1e308}}}, 400, "unsupported_parameter", "llmos.driver"),
        ({"llmos": {"driver": {"tokens": 10**30}}}, 400, "invalid_request", "llmos.driver"),
        ({"stream": "yes"}, 400, "invalid_request", "stream"),
    ],
)
def test_a_wrong_field_is_named(
    client: httpx.Client, change: dict[str, Any], status: int, code: str, param: str
) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | change)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert error["param"].startswith(param)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"model": "echo", "messages": NaN}',
        b'{"model": "echo", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "echo", "temperature": Infinity, "messages": []}',
        b'{"model": "echo", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'\xff\xfe{"model": "echo"}',
        b"[" * 100_000,
        json.dumps(CHAT).encode("utf-16"),
    ],
)
def test_a_body_that_is_not_ours_is_a_400(client: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "invalid_request"


def test_near_matches_are_named(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | {"model": "eco"})
    assert "echo" in answer.json()["error"]["message"]


def test_a_body_over_the_limit_is_a_413(client: httpx.Client) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": "x" * (9 * 1024 * 1024)}]}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "payload_too_large"


def test_a_long_prompt_is_refused_at_once(client: httpx.Client) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": "你" * 1_000_000}]}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_path_of_the_server_is_not_taken_over_tcp(client: httpx.Client) -> None:
    answer = client.post("/os/v1/models", json={"source": "file:/etc"})
    assert answer.status_code == 400
    assert "upload" in answer.json()["error"]["message"]


def test_every_route_but_health_needs_a_key(server: Server) -> None:
    with httpx.Client(base_url=server.url) as stranger:
        for path in ("/v1/models", "/os/v1/status", "/os/v1/keys", "/metrics"):
            assert stranger.get(path).status_code == 401, path
        assert stranger.post("/v1/chat/completions", json=CHAT).status_code == 401
        assert stranger.get("/healthz").status_code == 200
        assert stranger.get("/readyz").status_code == 200


def test_garbage_instead_of_http_harms_nobody(server: Server, client: httpx.Client) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 4096):
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(5)
            sock.recv(4096)
    assert client.get("/readyz").status_code == 200


def _truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["MambaForCausalLM"], "model_type": "mamba"}
    (folder / "config.json").write_text(json.dumps(config))


def _header(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes((1 << 60).to_bytes(8, "little") + weights.read_bytes()[8:])


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (_truncate, "model.safetensors"),
        (_pickle, "safetensors"),
        (_no_tokenizer, "tokenizer"),
        (_architecture, "Mamba"),
        (_header, "model.safetensors"),
    ],
)
def test_a_broken_model_is_refused_and_leaves_nothing(
    server: Server,
    client: httpx.Client,
    test_data: Path,
    tmp_path: Path,
    break_it: Callable[[Path], None],
    says: str,
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(test_data / "models" / "stories260k", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    break_it(folder)
    blobs = sorted((server.home / "blobs").rglob("*"))
    before = client.get("/os/v1/models").json()
    pulled = server.cli("pull", f"file:{folder}")
    assert pulled.returncode == 1
    assert says in pulled.stderr
    assert "Traceback" not in pulled.stderr
    assert client.get("/os/v1/models").json() == before
    assert sorted((server.home / "blobs").rglob("*")) == blobs
    assert not list((server.home / "uploads").iterdir())
