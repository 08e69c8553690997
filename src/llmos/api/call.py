"""One HTTP request as the routes see it, and the error boundary around every route."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from llmos.abi.blob import BlobSink
from llmos.abi.events import Aborted, Event, Failed
from llmos.abi.files import BlobSource
from llmos.abi.ids import new_id
from llmos.abi.logs import LogSource
from llmos.abi.principal import Authenticator, Authorizer, Principal
from llmos.abi.settings import SettingInfo
from llmos.api.config import ApiConfig
from llmos.api.gate import GateClient
from llmos.api.status import encode_envelope, error_headers
from llmos.api.wire import to_wire
from llmos.errors import (
    AuthenticationFailed,
    LLMOSError,
    QuotaExceeded,
    ReaderStalled,
    ShuttingDown,
)
from llmos.shapes.status import http_error
from llmos.telemetry.spans import Context
from llmos.telemetry.traced import AnswerRecord
from llmos.telemetry.tracer import Tracer

log = logging.getLogger(__name__)

CONNECTION = "llmos.connection"
"""Key of the `Connection` in an ASGI scope's extensions."""

_TRACE_PARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

encode_json = msgspec.json.Encoder().encode

Header = tuple[bytes, bytes]


class ClientGone(Exception):
    """The client closed its connection: there is nobody to answer."""


class Connection(Protocol):
    """What the server's protocol tells about the socket under a request."""

    def abort_if_blocked(self) -> None:
        """Cut the connection if its client does not read."""
        ...


@dataclass(frozen=True, slots=True)
class Edge:
    """What the routes need, injected by `build_app`. `allowed_uid` may name local paths."""

    gate: GateClient
    authenticator: Authenticator
    authorizer: Authorizer
    sink: BlobSink
    source: BlobSource
    render_metrics: Callable[[], tuple[bytes, str]]
    config: ApiConfig
    allowed_uid: int | None
    settings: Sequence[SettingInfo] = ()
    num_uploads: Counter[str] = field(default_factory=Counter)
    """Under way, by tenant."""
    tracer: Tracer | None = None
    logs: LogSource | None = None
    num_followers: Counter[str] = field(default_factory=Counter)
    """Who follow something that has no end, by what it is."""

    @contextmanager
    def uploading(self, tenant_id: str) -> Iterator[None]:
        """One tenant's slow uploads leave room for others'. Raises QuotaExceeded."""
        if self.num_uploads[tenant_id] >= self.config.max_tenant_uploads:
            raise QuotaExceeded(
                f"{self.num_uploads[tenant_id]} uploads of the tenant are under way",
                retry_after_s=5.0,
            )
        self.num_uploads[tenant_id] += 1
        try:
            yield
        finally:
            self.num_uploads[tenant_id] -= 1


class Call:
    """One request and its answer. `request_id` is the kernel's once it has accepted one."""

    __slots__ = (
        "_principal",
        "_send",
        "began_s",
        "edge",
        "error_prefix",
        "headers",
        "is_sse",
        "is_started",
        "receive",
        "request_id",
        "scope",
        "status",
        "trace",
        "written_s",
    )

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self.edge = edge
        self.scope = scope
        self.receive = receive
        self._send = send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.began_s = time.perf_counter()
        self.written_s = self.began_s
        self.request_id = ""
        self.is_started = False
        self.is_sse = False
        self.error_prefix = b"data: "
        self.status = 0
        self.trace: Context | None = None
        self._principal: Principal | None = None

    @property
    def principal(self) -> Principal:
        """Who asks. Raises AuthenticationFailed on a route that took no key."""
        if self._principal is None:
            raise AuthenticationFailed("No API key was presented.")
        return self._principal

    @property
    def trace_parent(self) -> str | None:
        """The W3C trace context that what is called becomes part of: of the answer's own span, or
        the caller's if it is well-formed."""
        if self.trace is not None:
            return self.trace.header
        return self.given_trace_parent

    @property
    def given_trace_parent(self) -> str | None:
        """The caller's."""
        given = self.headers.get(b"traceparent")
        return given.decode() if given and _TRACE_PARENT.fullmatch(given) else None

    @property
    def is_owner(self) -> bool:
        """True when the peer of a unix socket is the server's own user."""
        uid = self.edge.allowed_uid
        return uid is not None and self.scope.get("client") == (f"uid:{uid}", 0)

    def authenticate(self) -> None:
        """Equal work with and without a key. Raises AuthenticationFailed."""
        scheme, _, secret = self.headers.get(b"authorization", b"").partition(b" ")
        presented = secret.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
        self._principal = self.edge.authenticator.authenticate(presented)

    async def start(
        self, status: int, content_type: bytes, headers: list[Header] | None = None
    ) -> None:
        """Send status and headers."""
        if not self.request_id:
            self.request_id = new_id("req")
        self.is_started, self.status = True, status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", content_type),
                    (b"x-request-id", self.request_id.encode()),
                    *(headers or ()),
                ],
            }
        )

    async def start_sse(self, error_prefix: bytes = b"data: ") -> None:
        """Begin an event stream; an error event of it begins with `error_prefix`."""
        self.is_sse = True
        self.error_prefix = error_prefix
        await self.start(
            200,
            b"text/event-stream; charset=utf-8",
            [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")],
        )

    async def write(self, body: bytes, more: bool = True) -> None:
        """A piece of the body; `more` False ends the answer."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self.written_s = time.perf_counter()

    async def send_bytes(
        self, status: int, body: bytes, content_type: bytes, headers: list[Header] | None = None
    ) -> None:
        """A whole answer."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, content_type, [length, *(headers or ())])
        await self.write(body, more=False)

    async def send_json(self, value: Any, status: int = 200) -> None:
        """A whole answer as JSON."""
        await self.send_bytes(status, encode_json(value), b"application/json")

    async def fail(self, error: LLMOSError) -> None:
        """Answer with the error: as a status before the start, as a last event of a stream."""
        body = encode_envelope(error)
        if not self.is_started:
            self.request_id = self.request_id or str(error.details.get("request_id", ""))
            headers = error_headers(error)
            await self.send_bytes(http_error(error.code).status, body, b"application/json", headers)
        elif self.is_sse:
            await self.write(self.error_prefix + body + b"\n\n", more=False)
        # else: the server closes an answer that was left incomplete

    def on_terminal(self, event: Event) -> None:
        """A stream ended by force: do not wait for a client that does not read."""
        stalled = isinstance(event, Failed) and event.error.code == ReaderStalled.code
        if stalled or isinstance(event, Aborted):
            self.abort_if_blocked()

    def abort_if_blocked(self) -> None:
        """Cut the connection if its client does not read."""
        connection: Connection | None = self.scope.get("extensions", {}).get(CONNECTION)
        if connection is not None:
            connection.abort_if_blocked()


@contextmanager
def watching(call: Call, on_gone: Callable[[], object]) -> Iterator[None]:
    """Call `on_gone` if the client closes its connection before the block ends."""

    async def watch() -> None:
        while (await call.receive())["type"] != "http.disconnect":
            pass
        on_gone()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


def _let_go(error: Exception) -> None:
    """A stream keeps the error it raised, whose frames keep the stream and the request's body: a
    cycle of megabytes that only a full collection, a rare thing here, would free.
    """
    error.__traceback__ = None


Handler = Callable[[Call], Awaitable[msgspec.Struct | None]]
"""Returns what is answered, or None where it has answered by itself."""


class Endpoint:
    """An ASGI app: authenticates, runs one handler, turns whatever it raises into an answer."""

    def __init__(
        self, edge: Edge, handler: Handler, needs_key: bool = True, path: str = ""
    ) -> None:
        self._edge = edge
        self._handler = handler
        self._needs_key = needs_key
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(self._edge, scope, receive, send)
        tracer, given = self._edge.tracer, call.given_trace_parent
        if tracer is None or (given is None and scope["method"] == "GET"):
            await self._answer(call)  # what watches us asks all the time
        else:
            await self._traced(call, tracer, tracer.begin(given))

    async def _traced(self, call: Call, tracer: Tracer, context: Context) -> None:
        call.trace, begun_ns = context, time.time_ns()
        try:
            await self._answer(call)
        finally:
            if context.is_sampled:
                told = (call.status, call.request_id, begun_ns, time.time_ns())
                tracer.give(AnswerRecord(context, call.scope["method"], self._path, *told))

    async def _answer(self, call: Call) -> None:
        scope = call.scope
        try:
            if self._needs_key:
                call.authenticate()
            result = await self._handler(call)
            if result is not None:
                await call.send_json(to_wire(result))
        except ClientGone as e:
            _let_go(e)
        except LLMOSError as e:
            _let_go(e)
            await call.fail(e)
        except asyncio.CancelledError:  # the server stops and has waited long enough
            call.abort_if_blocked()
            await call.fail(ShuttingDown("The server is shutting down."))
        except Exception:
            call.request_id = call.request_id or new_id("req")
            extra = {"request_id": call.request_id}
            log.exception("a route failed on %s %s", scope["method"], scope["path"], extra=extra)
            await call.fail(LLMOSError("An error inside the server; its log has more."))
