"""A scripted kernel at the other end of an in-memory Channel, and an edge over it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from llmos.abi.blob import BlobRef
from llmos.abi.channel import ChannelClosed
from llmos.abi.events import Event, Finished, FinishReason, Tokens
from llmos.abi.inference import Usage
from llmos.abi.logs import LogSource
from llmos.abi.principal import Action, Principal, Resource, Role, ServiceClass
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import (
    Accepted,
    Ack,
    Body,
    Cancel,
    Emit,
    Health,
    HealthReport,
    Infer,
    ListModels,
    Model,
    ModelList,
    Refused,
    Reply,
    ShowModel,
    Syscall,
)
from llmos.api.app import build_app
from llmos.api.config import ApiConfig
from llmos.api.gate import GateClient
from llmos.errors import (
    AuthenticationFailed,
    LLMOSError,
    ModelNotFound,
    PermissionDenied,
    StorageError,
)
from llmos.ipc.memory import pair
from tests.unit.api import document

SECRET = "sk-llmos-test"
USER_SECRET = "sk-llmos-user"
ADMIN = Principal("prn_a", "ten_a", "admin", Role.ADMIN)
USER = Principal("prn_u", "ten_u", "user")
CREATED_NS = 1_700_000_000_000_000_000

Script = Callable[["FakeGate", Syscall], Any]


def model(name: str = "echo", version: str = "1", created_ns: int = CREATED_NS) -> ModelVersion:
    return ModelVersion(
        f"mdl_{name}{version}",
        name,
        version,
        driver="echo",
        format="none",
        folder="/models/echo",
        digest="sha256:" + "0" * 64,
        size_bytes=0,
        context_length=4096,
        vocab_size=256,
        prepare="x:y",
        source="bundled",
        created_ns=created_ns,
    )


def tokens(*texts: str) -> list[Event]:
    return [Tokens("r", [ord(t[0]) if t else 0], t) for t in texts]


def finished(num_tokens: int = 2, reason: FinishReason = FinishReason.STOP) -> Finished:
    return Finished("r", reason, Usage(3, num_tokens, 1))


@dataclass
class FakeGate:
    """Answers calls by `script` (a coroutine function per kind of body), records the rest."""

    channel: Any
    scripts: dict[type, Script] = field(default_factory=dict)
    calls: list[Syscall] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    tool_format: str = ""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        with contextlib.suppress(ChannelClosed):
            while True:
                for message in await self.channel.receive():
                    self._take(message)
                self.changed.set()

    def _take(self, message: Any) -> None:
        if isinstance(message, Ack):
            self.acks.append(message)
        elif isinstance(message, Cancel):
            self.cancels.append(message)
        else:
            self.calls.append(message)
            task = asyncio.ensure_future(self._answer(message))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, call: Syscall) -> None:
        script = self.scripts.get(type(call.body))
        if script is None:
            self.refuse(call, LLMOSError(f"no script for {call.body}"))
            return
        try:
            await script(self, call)
        except LLMOSError as e:
            self.refuse(call, e)

    def reply(self, call: Syscall, result: Any) -> None:
        self.channel.send(Reply(call.call, result))

    def refuse(self, call: Syscall, error: LLMOSError) -> None:
        self.channel.send(Refused(call.call, error.to_info()))

    def accept(self, call: Syscall) -> None:
        body = call.body
        assert isinstance(body, Infer)
        wanted = body.options.service_class
        self.reply(
            call,
            Accepted(
                f"req_{call.call:032x}",
                f"{body.model}:1",
                prompt_tokens=3,
                service_class=ServiceClass.INTERACTIVE if wanted is None else wanted,
                deterministic=True,
                created_ns=CREATED_NS,
                tool_format=self.tool_format,
            ),
        )

    def emit(self, call: Syscall, *events: Any) -> None:
        self.channel.send(Emit(call.call, list(events)))

    async def until(self, condition: Callable[[], bool], timeout_s: float = 5) -> None:
        """Wait for something to be recorded."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @property
    def bodies(self) -> list[Body]:
        return [call.body for call in self.calls]


async def echo(gate: FakeGate, call: Syscall) -> None:
    """Two tokens, in two messages."""
    if isinstance(call.body, Infer) and call.body.model == "missing":
        raise ModelNotFound("no model 'missing'; near: mission", details={"near": ["mission"]})
    gate.accept(call)
    gate.emit(call, *tokens("Hi "))
    gate.emit(call, *tokens("你好"), finished())


async def list_models(gate: FakeGate, call: Syscall) -> None:
    gate.reply(call, ModelList([model(), model("pilot", "1"), model("pilot", "2", CREATED_NS + 1)]))


async def show_model(gate: FakeGate, call: Syscall) -> None:
    assert isinstance(call.body, ShowModel)
    if call.body.ref != "echo":
        raise ModelNotFound(f"no model {call.body.ref!r}")
    gate.reply(call, Model(model()))


async def healthy(gate: FakeGate, call: Syscall) -> None:
    gate.reply(call, HealthReport(True, []))


DEFAULT: dict[type, Script] = {
    Infer: echo,
    ListModels: list_models,
    ShowModel: show_model,
    Health: healthy,
}


class Keys:
    """Two keys."""

    def authenticate(self, secret: str) -> Principal:
        if secret == SECRET:
            return ADMIN
        if secret == USER_SECRET:
            return USER
        raise AuthenticationFailed("Incorrect API key provided.")


USER_RIGHTS = {Action.INFER, Action.READ_FILES, Action.WRITE_FILES, Action.SUBMIT_JOBS}


class Rules:
    """Users may infer, and have files and jobs."""

    def authorize(self, principal: Principal, action: Action, resource: Resource) -> None:
        if principal.role is not Role.ADMIN and action not in USER_RIGHTS:
            raise PermissionDenied(f"{principal.name} may not {action} {resource.kind}")


@dataclass
class Sink:
    """Keeps uploads in memory; notes what was cut short."""

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)

    async def write(self, upload_id: str, filename: str, chunks: AsyncIterator[bytes]) -> BlobRef:
        data = b""
        try:
            async for chunk in chunks:
                data += chunk
        except BaseException:
            self.broken.append(filename)
            raise
        self.files[upload_id, filename] = data
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.kept[digest] = data
        return BlobRef(digest, len(data), f"/home/secret/{filename}")

    async def discard(self, upload_id: str) -> None:
        self.files = {k: v for k, v in self.files.items() if k[0] != upload_id}


@dataclass
class Source:
    """Reads what the sink was given, in small pieces."""

    sink: Sink
    num_open: int = 0

    async def read(
        self, ref: BlobRef, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        data = self.sink.kept.get(ref.digest)
        if data is None:
            raise StorageError("the blob is gone")
        part = data[start:end]
        self.num_open += 1
        try:
            for at in range(0, len(part), 1000):
                yield part[at : at + 1000]
        finally:
            self.num_open -= 1


@dataclass
class Edge:
    """An app over a scripted gate, and an httpx client that calls it without a network."""

    app: Any
    gate: FakeGate
    sink: Sink
    source: Source
    client: httpx.AsyncClient
    gate_client: GateClient

    async def post(self, path: str, body: Any, **kwargs: Any) -> httpx.Response:
        return await self.client.post(path, json=body, **kwargs)

    async def chat(self, **fields: Any) -> httpx.Response:
        body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], **fields}
        return await self.post("/v1/chat/completions", body)


@contextlib.asynccontextmanager
async def edge(
    scripts: dict[type, Script] | None = None,
    client_addr: tuple[str, int] = ("127.0.0.1", 1),
    log_source: LogSource | None = None,
    **limits: Any,
) -> AsyncIterator[Edge]:
    """Everything but the kernel and the network."""
    near, far = pair()
    gate = FakeGate(far, {**DEFAULT, **(scripts or {})})
    sink, gate_client = Sink(), GateClient(near)
    source = Source(sink)
    app = build_app(
        gate_client,
        Keys(),
        sink,
        lambda: (b"up 1\n", "text/plain; version=0.0.4"),
        ApiConfig(**limits),
        authorizer=Rules(),
        source=source,
        log_source=log_source,
        allowed_uid=4242,
    )
    running = asyncio.ensure_future(gate.run())
    transport = httpx.ASGITransport(app, raise_app_exceptions=True, client=client_addr)
    headers = {"authorization": f"Bearer {SECRET}"}
    try:
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://edge",
            headers=headers,
            event_hooks={"response": [document.check]},
        ) as client:
            yield Edge(app, gate, sink, source, client, gate_client)
    finally:
        await gate_client.close()
        for task in list(gate.tasks):
            task.cancel()
        await asyncio.gather(running, *gate.tasks, return_exceptions=True)


def events_of(text: str) -> Iterator[str]:
    """The data of each server-sent event."""
    for block in text.split("\n\n"):
        if block.startswith("data: "):
            yield block.removeprefix("data: ")
