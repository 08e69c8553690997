"""The real server on real sockets: disconnects, stalled readers, slow headers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvloop

from llmos.abi.events import Failed, Tokens
from llmos.abi.syscall import Infer, PullModel, Syscall
from llmos.api.app import build_app
from llmos.api.call import Call, ClientGone, Endpoint
from llmos.api.config import ApiConfig
from llmos.api.gate import GateClient
from llmos.api.server import serve
from llmos.errors import ReaderStalled
from llmos.ipc.memory import pair
from tests.unit.api.fake_gate import (
    DEFAULT,
    SECRET,
    FakeGate,
    Keys,
    Rules,
    Script,
    Sink,
    Source,
    finished,
    tokens,
)

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
AUTH = {"authorization": f"Bearer {SECRET}"}


@dataclass
class Live:
    """A served edge. `stop` begins a graceful stop, `serving` ends with it."""

    url: str
    port: int
    gate: FakeGate
    sink: Sink
    stop: asyncio.Event
    serving: asyncio.Task[None]
    writers: list[asyncio.StreamWriter]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def post(self, body: Any, path: str = "/v1/chat/completions") -> Any:
        """A raw connection with one request sent."""
        reader, writer = await self.connect()
        writer.write(request(path, body))
        return reader, writer


def request(path: str, body: Any) -> bytes:
    raw = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {SECRET}\r\ncontent-length: {len(raw)}\r\n\r\n"
    ).encode() + raw


@contextlib.asynccontextmanager
async def live(
    scripts: dict[type, Script] | None = None, uds_path: Path | None = None, **limits: Any
) -> AsyncIterator[Live]:
    near, far = pair()
    gate = FakeGate(far, {**DEFAULT, **(scripts or {})})
    gate_client, sink = GateClient(near), Sink()
    config = ApiConfig(port=0, **limits)
    app = build_app(
        gate_client,
        Keys(),
        sink,
        lambda: (b"", "text/plain"),
        config,
        authorizer=Rules(),
        source=Source(sink),
        allowed_uid=os.getuid(),
    )
    running = asyncio.ensure_future(gate.run())
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []
    serving = asyncio.ensure_future(serve(app, config, uds_path, started.set_result, stop))
    try:
        await asyncio.wait({started, serving}, return_when=asyncio.FIRST_COMPLETED)
        url = await started
        yield Live(url, int(url.rpartition(":")[2]), gate, sink, stop, serving, writers)
    finally:
        for writer in writers:
            writer.transport.abort()
        stop.set()
        await asyncio.gather(serving, return_exceptions=True)
        await gate_client.close()
        for task in list(gate.tasks):
            task.cancel()
        await asyncio.gather(running, *gate.tasks, return_exceptions=True)


def run(scene: Any) -> None:
    """On uvloop, as the server runs; a scene that hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scene()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


async def _silent(gate: FakeGate, call: Syscall) -> None:
    return None


async def _accept_only(gate: FakeGate, call: Syscall) -> None:
    gate.accept(call)


async def _begin(gate: FakeGate, call: Syscall) -> None:
    gate.accept(call)
    gate.emit(call, *tokens("a"))


@pytest.mark.parametrize("script", [_silent, _accept_only, _begin], ids=lambda s: s.__name__)
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_noticed_at_once(script: Script, stream: bool) -> None:
    """Queued, accepted or running; streamed or not."""

    async def scene() -> None:
        async with live({Infer: script}) as s:
            _, writer = await s.post({**CHAT, "stream": stream})
            await s.gate.until(lambda: bool(s.gate.calls))
            writer.close()
            await s.gate.until(lambda: len(s.gate.cancels) == 1, timeout_s=1)
            assert s.gate.cancels[0].call == s.gate.calls[0].call

    run(scene)


def test_a_client_that_leaves_cancels_every_prompt_and_a_pull() -> None:
    async def scene() -> None:
        async with live({Infer: _accept_only, PullModel: _silent}) as s:
            _, writer = await s.post({"model": "echo", "prompt": ["a", "b"]}, "/v1/completions")
            _, other = await s.post({"source": "hf:a/b"}, "/os/v1/models")
            await s.gate.until(lambda: len(s.gate.calls) == 3)
            writer.close()
            other.close()
            await s.gate.until(lambda: len(s.gate.cancels) == 3, timeout_s=1)

    run(scene)


async def _flood(gate: FakeGate, call: Syscall) -> None:
    """As a kernel does: sends while it has credit, ends a reader that takes nothing."""
    gate.accept(call)
    text, num_sent = "x" * 65_536, 0

    def num_unacked() -> int:
        return num_sent - sum(a.num_events for a in gate.acks)

    while num_sent < 1000:
        gate.emit(call, Tokens("r", [1], text))
        num_sent += 1
        if num_unacked() > 8:
            with contextlib.suppress(TimeoutError):
                await gate.until(lambda: num_unacked() <= 8, 0.2)
            if num_unacked() > 8:
                break
    assert num_sent < 1000, "somebody took it all"
    gate.emit(call, Failed("r", ReaderStalled("stopped reading").to_info()))


def test_a_stalled_reader_is_cut_and_its_task_ends() -> None:
    async def scene() -> None:
        before = len(asyncio.all_tasks())
        async with live({Infer: _flood}) as s:
            reader, writer = await s.post({**CHAT, "stream": True})
            await reader.readexactly(10)
            writer.transport.pause_reading()
            await s.gate.until(lambda: bool(s.gate.calls))
            answering = next(iter(s.gate.tasks))
            await answering
            async with asyncio.timeout(2):
                while len(s.gate.acks) == 0 or _num_connections() > 0:
                    await asyncio.get_running_loop().run_in_executor(None, os.sched_yield)
            writer.transport.abort()
        assert len(asyncio.all_tasks()) <= before + 1

    def _num_connections() -> int:
        return sum(
            "RequestResponseCycle.run_asgi" in repr(t.get_coro()) for t in asyncio.all_tasks()
        )

    run(scene)


def test_the_sweep_cuts_a_reader_the_kernel_has_no_more_to_say_to() -> None:
    async def big(gate: FakeGate, call: Syscall) -> None:
        gate.accept(call)
        gate.emit(call, Tokens("r", [1], "x" * 30_000_000), finished())

    async def scene() -> None:
        async with live({Infer: big}, write_timeout_s=0.5) as s:
            reader, writer = await s.post({**CHAT, "stream": True})
            writer.transport.pause_reading()
            s.stop.set()  # a stop waits for connections: it ends only because this one is cut
            async with asyncio.timeout(10):
                await s.serving
            writer.transport.abort()
            del reader

    run(scene)


def test_a_stalled_reader_slows_nobody() -> None:
    async def script(gate: FakeGate, call: Syscall) -> None:
        assert isinstance(call.body, Infer)
        gate.accept(call)
        if call.body.model == "big":
            gate.emit(call, *[Tokens("r", [1], "x" * 500_000)] * 40)
        else:
            gate.emit(call, *tokens("a"), finished())

    async def scene() -> None:
        async with live({Infer: script}) as s:
            _, writer = await s.post({**CHAT, "model": "big", "stream": True})
            writer.transport.pause_reading()
            async with httpx.AsyncClient(base_url=s.url, headers=AUTH) as client:
                posts = [client.post("/v1/chat/completions", json=CHAT) for _ in range(20)]
                async with asyncio.timeout(30):  # it is none of speed: the other never ends
                    answers = await asyncio.gather(*posts)
            assert {a.status_code for a in answers} == {200}
            writer.transport.abort()

    run(scene)


@pytest.mark.parametrize(
    ("first", "bound"),
    [
        (b"", {"header_timeout_s": 0.3}),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost", {"header_timeout_s": 0.3}),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", {"keepalive_timeout_s": 0.3}),
    ],
    ids=["nothing", "half headers", "idle after an answer"],
)
def test_a_connection_that_says_nothing_is_closed(first: bytes, bound: dict[str, float]) -> None:
    async def scene() -> None:
        async with live(**bound) as s:
            reader, writer = await s.connect()
            writer.write(first)
            async with asyncio.timeout(4):
                with contextlib.suppress(ConnectionError):
                    await reader.read(-1)
            writer.close()

    run(scene)


def test_a_body_that_never_comes_is_a_400() -> None:
    async def scene() -> None:
        async with live(body_timeout_s=0.1) as s:
            reader, writer = await s.connect()
            writer.write(request("/v1/chat/completions", CHAT)[:-5])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400")
            writer.close()

    run(scene)


def test_a_body_over_the_limit_is_answered_although_the_client_still_sends() -> None:
    async def scene() -> None:
        async with (
            live(max_body_bytes=1024) as s,
            httpx.AsyncClient(base_url=s.url, headers=AUTH) as client,
        ):
            body = {**CHAT, "x": "y" * 5_000_000}
            for _ in range(2):  # and the connection can be used again
                response = await client.post("/v1/chat/completions", json=body)
                assert response.status_code == 413
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200

    run(scene)


def test_a_refused_body_without_end_is_cut() -> None:
    async def scene() -> None:
        async with live(max_body_bytes=1024, linger_timeout_s=0.3) as s:
            reader, writer = await s.connect()
            head = request("/v1/chat/completions", CHAT).partition(b"content-length")[0]
            writer.write(head + b"transfer-encoding: chunked\r\n\r\n" + b"800\r\n" + b" " * 2048)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413")
            async with asyncio.timeout(4):
                with contextlib.suppress(ConnectionError):
                    await reader.read(-1)
            writer.close()

    run(scene)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\na: " + b"x" * 100_000, b"431"),
        (b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, b"431"),
        (b"GET /" + b"x" * 50_000 + b" HTTP/1.1\r\n\r\n", b"431"),
    ],
    ids=["no http", "one endless header", "many headers", "long url"],
)
def test_what_the_parser_refuses_is_an_envelope(raw: bytes, status: bytes) -> None:
    async def scene() -> None:
        async with live() as s:
            reader, writer = await s.connect()
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.split(b" ")[1] == status
            assert "error" in json.loads(await reader.read(-1))
            writer.close()

    run(scene)


def test_too_many_connections_are_refused() -> None:
    async def scene() -> None:
        async with live(max_connections=1) as s:
            _, first = await s.connect()
            first.write(b"GET /hea")
            async with httpx.AsyncClient(base_url=s.url) as client:
                for _ in range(20):  # the first one may not be known to the server yet
                    with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
                        response = await client.get("/healthz")
                        break
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "capacity_error"
            first.close()

    run(scene)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def scene() -> None:
        async with live() as s:
            reader, writer = await s.connect()
            writer.write(
                request("/v1/chat/completions", CHAT) + b"GET /nope HTTP/1.1\r\nhost: x\r\n\r\n"
            )
            first = await reader.readuntil(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 200")
            rest = b""
            while b"404" not in rest:
                rest += await reader.read(4096)
            writer.close()

    run(scene)


def test_a_client_that_leaves_with_requests_in_the_pipe_is_noticed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with live({Infer: _begin}, keepalive_comment_s=0.1) as s:
            _, writer = await s.connect()
            writer.write(request("/v1/chat/completions", {**CHAT, "stream": True}) * 3)
            await s.gate.until(lambda: bool(s.gate.calls))
            writer.transport.abort()
            await s.gate.until(lambda: len(s.gate.cancels) == 1)
            assert len(s.gate.calls) == 1
        assert not [r for r in caplog.records if r.levelname == "ERROR"]

    run(scene)


def test_a_request_whose_client_left_is_freed_without_a_collection() -> None:
    class Holder:
        error: Exception

    held: list[weakref.ref[Holder]] = []

    async def handler(call: Call) -> None:
        holder = Holder()
        held.append(weakref.ref(holder))
        holder.error = ClientGone()
        raise holder.error

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    async def main() -> None:
        edge: Any = SimpleNamespace(tracer=None)
        await Endpoint(edge, handler, needs_key=False)({"headers": []}, nothing, nothing)

    gc.disable()
    try:
        asyncio.run(main())
        assert [reference() for reference in held] == [None]
    finally:
        gc.enable()


def test_an_upload_cut_by_its_client_reaches_the_sink_as_broken() -> None:
    async def scene() -> None:
        async with live() as s:
            _, writer = await s.connect()
            url = f"/os/v1/uploads/upl_{'0' * 32}/a"
            writer.write(
                f"PUT {url} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n"
                "content-length: 100\r\n\r\nabc".encode()
            )
            await writer.drain()
            writer.close()
            async with asyncio.timeout(2):
                while s.sink.broken != ["a"]:
                    await asyncio.get_running_loop().run_in_executor(None, os.sched_yield)
            assert s.sink.files == {}

    run(scene)
