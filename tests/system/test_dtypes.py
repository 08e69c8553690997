"""The type of weights, through the real server: chosen at load, said, and quantized for good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos.weights.processor import choose_dtype
from tests.system.server import Server
from tests.system.test_cli import until_unloaded


@pytest.fixture
def tale(server: Server, test_data: Path) -> Iterator[str]:
    source = f"file:{test_data}/models/stories260k"
    assert server.cli("pull", source, "--name", "tale").returncode == 0
    yield "tale"
    with server.client() as client:
        client.post("/os/v1/models/tale/unload")
        until_unloaded(client, "tale")


def _replica(server: Server) -> dict[str, object]:
    with server.client() as client:
        replicas = client.get("/os/v1/replicas").json()["replicas"]
    return next(replica for replica in replicas if replica["model"] == "tale:1")


def test_a_type_is_asked_for_kept_and_given_up(server: Server, tale: str) -> None:
    assert json.loads(server.cli("show", tale, "--json").stdout)["dtype"] == "float32"
    wanted = choose_dtype("bfloat16", "float32")
    loaded = server.cli("load", tale, "--dtype", "bfloat16")
    assert loaded.stdout.startswith("tale:1 is loaded as bfloat16")
    assert all(warning in loaded.stdout for warning in wanted.warnings)
    replica = _replica(server)
    assert replica["dtype"] == "bfloat16"
    assert replica["dtype_reason"] == wanted.reason
    assert replica["warnings"] == wanted.warnings
    shown = json.loads(server.cli("show", tale, "--json").stdout)
    assert shown["loaded_as"].startswith(f"bfloat16: {wanted.reason}")
    assert "bfloat16" in server.cli("ps", "--memory").stdout
    assert wanted.reason in server.cli("ps", "--memory", "--wide").stdout
    refused = server.cli("load", tale, "--dtype", "float32")
    assert refused.returncode == 1
    assert "is loaded as bfloat16: `llmos unload tale:1` first" in refused.stderr
    assert server.cli("load", tale).returncode == 0  # as it is
    assert server.cli("run", tale, "Once", "--max-tokens", "3").returncode == 0
    assert server.cli("unload", tale).returncode == 0
    assert server.cli("load", tale, "--dtype", "float32").returncode == 0  # while the other goes
    assert _resident_dtypes(server) == {"float32"}


def _resident_dtypes(server: Server) -> set[str]:
    with server.client() as client:
        replicas = client.get("/os/v1/replicas").json()["replicas"]
    return {r["dtype"] for r in replicas if r["model"] == "tale:1" and r["state"] == "ready"}


def test_after_an_unload_it_has_its_own_type_again(server: Server, tale: str) -> None:
    assert server.cli("load", tale, "--dtype", "bfloat16").returncode == 0
    assert server.cli("unload", tale).returncode == 0
    shown = json.loads(server.cli("show", tale, "--json").stdout)
    assert shown["loaded_as"].startswith("float32: its files are float32")
    assert server.cli("run", tale, "Once", "--max-tokens", "3").returncode == 0
    assert _resident_dtypes(server) == {"float32"}


def test_what_has_no_such_type(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/os/v1/models/echo/load", json={"dtype": "int8"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dtype")
        assert client.post("/os/v1/models/echo/load", json={"dtype": "auto"}).status_code == 200


def test_quantize_a_model(server: Server, tale: str) -> None:
    made = server.cli("quantize", tale, "--to", "int8")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("tale-int8:1")
    shown = json.loads(server.cli("show", "tale-int8", "--json").stdout)
    assert (shown["dtype"], shown["source"]) == ("int8", "quantized:tale:1")
    assert shown["num_parameters"] == 260_032
    assert list(shown["loads"]) == ["int8"]
    with server.client() as client:
        again = client.post("/os/v1/models/tale-int8/quantize", json={"to": "int4"})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
        other = client.post("/os/v1/models/tale-int8/load", json={"dtype": "float32"})
        assert (other.status_code, other.json()["error"]["param"]) == (400, "dtype")
        nobody = client.post("/os/v1/models/nobody/quantize", json={"to": "int4"})
        assert nobody.status_code == 404
        bare = client.post("/os/v1/models/echo/quantize", json={"to": "int4"})
        assert (bare.status_code, bare.json()["error"]["code"]) == (400, "model_rejected")
    secret = json.loads(server.cli("key", "add", "q", "--tenant", "q", "--json").stdout)["secret"]
    with server.client(token=secret) as user:
        answer = user.post("/os/v1/models/tale/quantize", json={"to": "int4"})
        assert answer.status_code == 403
    assert server.cli("rm", "tale-int8", "--yes").returncode == 0
