"""Models that come: pulls and quantizing, told as they go, and uploads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmos.abi.registry import PullProgress
from llmos.abi.syscall import (
    Model,
    PullModel,
    QuantizeModel,
    Syscall,
)
from llmos.errors import Conflict, ModelRejected
from tests.unit.api.fake_gate import USER_SECRET, FakeGate, edge, model
from tests.unit.api.test_routes import UPLOAD


async def _pull(gate: FakeGate, call: Syscall) -> None:
    gate.emit(call, PullProgress("hash", "a", 1, 2))
    gate.emit(call, PullProgress("hash", "a", 2, 2))
    gate.reply(call, Model(model()))


async def _pull_breaks(gate: FakeGate, call: Syscall) -> None:
    gate.emit(call, PullProgress("hash", "a", 1, 2))
    raise ModelRejected("config.json is broken")


async def _pull_refused(gate: FakeGate, call: Syscall) -> None:
    raise ModelRejected("config.json is broken")


def _named_events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in filter(None, text.split("\n\n")):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_pull_streams_progress_then_done() -> None:
    async def scene() -> None:
        async with edge({PullModel: _pull}) as e:
            response = await e.post("/os/v1/models", {"source": "hf:a/b@main", "name": "x"})
            names = _named_events(response.text)
            assert [n for n, _ in names] == ["progress", "progress", "done"]
            assert names[0][1]["done_bytes"] == 1
            assert names[-1][1]["name"] == "echo"
            assert e.gate.bodies == [PullModel("hf:a/b@main", "x")]

    asyncio.run(scene())


def test_quantizing_streams_progress_then_done() -> None:
    async def scene() -> None:
        async with edge({QuantizeModel: _pull}) as e:
            response = await e.post("/os/v1/models/org/m:2/quantize", {"to": "int4", "name": "x"})
            names = _named_events(response.text)
            assert [n for n, _ in names] == ["progress", "progress", "done"]
            await e.post("/os/v1/models/m/quantize", {"to": "int8"})
            assert e.gate.bodies == [
                QuantizeModel("org/m:2", "int4", "x"),
                QuantizeModel("m", "int8"),
            ]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "to"), ({"to": "int5"}, "to"), ({"to": 8}, "to"), ({"to": "int8", "as": "x"}, "as")],
)
def test_bad_quantizing_is_400_naming_the_field(body: dict[str, Any], param: str) -> None:
    async def scene() -> None:
        async with edge({QuantizeModel: _pull}) as e:
            response = await e.post("/os/v1/models/m/quantize", body)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
            assert e.gate.bodies == []

    asyncio.run(scene())


def test_quantizing_refused_at_once_is_a_status() -> None:
    async def refuse(gate: FakeGate, call: Syscall) -> None:
        raise Conflict("quantized already")

    async def scene() -> None:
        async with edge({QuantizeModel: refuse}) as e:
            response = await e.post("/os/v1/models/m/quantize", {"to": "int8"})
            assert response.status_code == 409

    asyncio.run(scene())


def test_a_pull_that_breaks_ends_with_an_error_event() -> None:
    async def scene() -> None:
        async with edge({PullModel: _pull_breaks}) as e:
            *_, (name, data) = _named_events(
                (await e.post("/os/v1/models", {"source": "hf:a/b"})).text
            )
            assert (name, data["error"]["code"]) == ("error", "model_rejected")

    asyncio.run(scene())


def test_a_pull_refused_at_once_is_a_status() -> None:
    async def scene() -> None:
        async with edge({PullModel: _pull_refused}) as e:
            assert (await e.post("/os/v1/models", {"source": "hf:a/b"})).status_code == 400

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("addr", "source", "allowed"),
    [
        (("uid:4242", 0), "file:/m", True),
        (("uid:1", 0), "file:/m", False),
        (("127.0.0.1", 5), "file:/m", False),
        (("127.0.0.1", 5), " file:/m", False),
        (("127.0.0.1", 5), "FILE:/m", False),
        (("127.0.0.1", 5), "/m", False),
        (("127.0.0.1", 5), "upload:" + UPLOAD, True),
    ],
)
def test_paths_are_for_the_servers_own_user_only(
    addr: tuple[str, int], source: str, allowed: bool
) -> None:
    async def scene() -> None:
        async with edge({PullModel: _pull}, client_addr=addr) as e:
            spoofed = {"x-forwarded-for": "uid:4242", "forwarded": "for=uid:4242"}
            response = await e.post("/os/v1/models", {"source": source}, headers=spoofed)
            assert response.status_code == (200 if allowed else 400)
            assert bool(e.gate.calls) == allowed
            if not allowed:
                assert response.json()["error"]["param"] == "source"

    asyncio.run(scene())


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_an_upload_is_streamed_to_the_sink() -> None:
    async def scene() -> None:
        async with edge() as e:
            url = f"/os/v1/uploads/{UPLOAD}/sub/model.safetensors"
            response = await e.client.put(url, content=_chunks(b"ab", b"", b"cd"))
            assert response.status_code == 200
            assert response.json()["size_bytes"] == 4
            assert "secret" not in response.text
            assert e.sink.files == {(UPLOAD, "sub/model.safetensors"): b"abcd"}
            assert (await e.client.delete(f"/os/v1/uploads/{UPLOAD}")).status_code == 200
            assert e.sink.files == {}

    asyncio.run(scene())


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_over_the_limit_is_cut(declared: bool) -> None:
    async def scene() -> None:
        async with edge(max_upload_bytes=3) as e:
            content = b"abcd" if declared else _chunks(b"ab", b"cd")
            response = await e.client.put(f"/os/v1/uploads/{UPLOAD}/a", content=content)
            assert response.status_code == 413
            assert e.sink.files == {}
            assert e.sink.broken == ["a"]

    asyncio.run(scene())


def test_uploads_are_for_those_who_may_write_models() -> None:
    async def scene() -> None:
        async with edge() as e:
            user = {"authorization": f"Bearer {USER_SECRET}"}
            url = f"/os/v1/uploads/{UPLOAD}/a"
            assert (await e.client.put(url, content=b"x", headers=user)).status_code == 403
            assert (await e.client.put("/os/v1/uploads/x/a", content=b"x")).status_code == 400
            assert e.sink.files == {}

    asyncio.run(scene())


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_413(declared: bool) -> None:
    async def scene() -> None:
        async with edge(max_body_bytes=1024) as e:
            content = b" " * 2000 if declared else _chunks(*[b" " * 100] * 20)
            headers = {"content-type": "application/json"}
            response = await e.client.post("/v1/completions", content=content, headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (
                413,
                "payload_too_large",
            )

    asyncio.run(scene())


def test_a_compressed_body_is_refused() -> None:
    async def scene() -> None:
        async with edge() as e:
            headers = {"content-encoding": "gzip"}
            response = await e.post("/v1/completions", {"model": "x"}, headers=headers)
            assert response.json()["error"]["param"] == "content-encoding"

    asyncio.run(scene())
