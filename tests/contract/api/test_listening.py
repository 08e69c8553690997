"""Where the server listens, and how it stops."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import httpx
import pytest

from llmos.abi.syscall import Infer, LoadModel, Model, PullModel, Syscall
from llmos.api.server import bind_tcp, bind_unix
from llmos.errors import ConfigError
from tests.contract.api.test_server import AUTH, CHAT, _begin, _silent, live, run
from tests.unit.api.fake_gate import (
    FakeGate,
    finished,
    model,
)


async def _pulled(gate: FakeGate, call: Syscall) -> None:
    gate.reply(call, Model(model()))


def test_the_unix_socket_is_private_and_knows_its_peer(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"

    async def scene() -> None:
        async with live({PullModel: _pulled}, uds_path=path) as s:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            body = {"source": "file:/models/x"}
            async with httpx.AsyncClient(
                transport=transport, base_url="http://os", headers=AUTH
            ) as local:
                response = await local.post("/os/v1/models", json=body)
                assert response.status_code == 200, response.text
                assert (await local.get("/v1/models")).status_code == 200
                local.headers.pop("authorization")
                assert (await local.get("/v1/models")).status_code == 401
            async with httpx.AsyncClient(base_url=s.url, headers=AUTH) as remote:
                spoof = {"x-forwarded-for": f"uid:{os.getuid()}"}
                response = await remote.post("/os/v1/models", json=body, headers=spoof)
                assert response.status_code == 400
        assert not path.exists()

    run(scene)


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    bind_unix(path).close()
    assert path.is_socket()
    again = bind_unix(path)
    again.listen()
    with pytest.raises(ConfigError):
        bind_unix(path)
    again.close()
    with pytest.raises(ConfigError):
        bind_unix(tmp_path / ("x" * 120))
    (tmp_path / "plain").write_text("mine")
    with pytest.raises(ConfigError):
        bind_unix(tmp_path / "plain")
    assert (tmp_path / "plain").read_text() == "mine"


def test_a_busy_port_and_a_wrong_host_are_config_errors() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)):
            bind_tcp("127.0.0.1", port)
    with pytest.raises(ConfigError):
        bind_tcp("no.such.host.invalid", 0)


def test_connections_notice_a_dead_machine() -> None:
    with bind_tcp("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_a_stop_lets_answers_finish_and_refuses_new_connections() -> None:
    async def scene() -> None:
        async with live({Infer: _begin}) as s:
            reader, _ = await s.post({**CHAT, "stream": True})
            await s.gate.until(lambda: bool(s.gate.acks))
            s.stop.set()
            s.gate.emit(s.gate.calls[0], finished())
            text = await reader.read(-1)
            assert b"[DONE]" in text
            await s.serving
            with pytest.raises(OSError):
                await s.connect()

    run(scene)


@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_does_not_wait_for_ever(stream: bool) -> None:
    async def scene() -> None:
        async with live({Infer: _begin}, graceful_timeout_s=0.3) as s:
            reader, _ = await s.post({**CHAT, "stream": stream})
            await s.gate.until(lambda: bool(s.gate.calls))
            s.stop.set()
            text = await reader.read(-1)
            assert b"shutting_down" in text
            assert b"[DONE]" not in text
            await s.serving
            await s.gate.until(lambda: len(s.gate.cancels) == 1)

    run(scene)


def test_a_unary_call_whose_client_leaves_is_forgotten() -> None:
    async def scene() -> None:
        async with live({LoadModel: _silent}) as s:
            _, writer = await s.post({}, "/os/v1/models/echo/load")
            await s.gate.until(lambda: bool(s.gate.calls))
            writer.close()
            s.stop.set()
            async with asyncio.timeout(5):
                await s.serving

    run(scene)
