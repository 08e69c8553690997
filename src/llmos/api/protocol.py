"""uvicorn's HTTP/1.1 protocol with bounds on headers and silence, peer uids, JSON refusals."""

from __future__ import annotations

import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from llmos.api.call import CONNECTION, encode_json
from llmos.api.config import ApiConfig
from llmos.shapes.status import INVALID, OVERLOADED

_UCRED = struct.Struct("3i")


class EdgeProtocol(HttpToolsProtocol):
    """One connection. The server calls `sweep` once a second; there is no timer per request."""

    limits: ApiConfig = ApiConfig()

    _under_way: RequestResponseCycle | None = None

    _num_header_bytes = 0
    _num_raw_bytes = 0
    """Of headers that are not complete yet."""

    _is_reading_body = False
    _is_answering = False
    _has_begun = False
    """Something of the request we are waiting for has arrived."""

    _was_used = False
    """A request was answered, so this is a client that knows HTTP and may idle for longer."""

    _waiting_since_s: float | None = None
    """Since when the peer owes us the headers of a request."""

    _answered_since_s: float | None = None
    """Since when the answer is out although the request's body is not all in."""

    _blocked_since_s: float | None = None
    """Since when the peer does not read."""

    # connection

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._waiting_since_s = self.loop.time()
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX and hasattr(socket, "SO_PEERCRED"):
            self.client = (f"uid:{_peer_uid(sock.fileno())}", 0)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, "Too many connections.", OVERLOADED, "capacity_error")

    def abort_if_blocked(self) -> None:
        """Cut the connection if its client does not read."""
        if self.flow.write_paused:
            self.transport.abort()

    def pause_writing(self) -> None:
        self._blocked_since_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._blocked_since_s = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request under way too: with pipelining, uvicorn tells the last one only."""
        super().connection_lost(exc)
        cycle, self._under_way = self._under_way, None
        self.pipeline.clear()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._under_way = cycle
        super()._start_asgi_task(cycle, app)

    # requests

    def data_received(self, data: bytes) -> None:
        if self._waiting_since_s is not None:
            self._num_raw_bytes += len(data)
        super().data_received(data)
        if self._waiting_since_s is None:
            self._num_raw_bytes = 0
        elif self._num_raw_bytes > self.limits.max_header_bytes and not self.transport.is_closing():
            self._refuse_headers()  # one endless header shows in no callback

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._num_header_bytes = 0
        self._has_begun = True
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        self._waiting_since_s = None
        self._is_reading_body = self._is_answering = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_reading_body = False
        self._answered_since_s = None
        if not self._is_answering:
            self._wait()

    def on_response_complete(self) -> None:
        if not self.pipeline:
            self._is_answering = False
            self._was_used = True
            if self._is_reading_body:
                self._answered_since_s = self.loop.time()
            else:
                self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        self._waiting_since_s = self.loop.time()
        self._has_begun = False

    def _count(self, num_bytes: int) -> None:
        self._num_header_bytes += num_bytes
        if self._num_header_bytes > self.limits.max_header_bytes:
            raise ValueError("headers over the limit")  # the parser turns it into a 400

    # refusals without a route

    def send_400_response(self, msg: str) -> None:
        if self._num_header_bytes > self.limits.max_header_bytes:
            self._refuse_headers()
        elif self._is_answering and self.cycle.response_started:
            self.transport.close()  # the middle of an answer is no place for another one
        else:
            self._refuse(400, msg, INVALID, "invalid_request")

    def _refuse_headers(self) -> None:
        limit = self.limits.max_header_bytes
        self._refuse(431, f"Headers are over {limit} bytes.", INVALID, "payload_too_large")

    def _refuse(self, status: int, message: str, kind: str, code: str) -> None:
        error = {"message": message, "type": kind, "param": None, "code": code}
        body = encode_json({"error": error})
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
            + str(len(body)).encode()
            + b"\r\n\r\n"
            + body
        )
        self.transport.close()

    # time

    def sweep(self, now_s: float) -> None:
        """Close what has kept us waiting for longer than its bound."""
        if self.transport.is_closing():
            # closing waits for the peer to take what is buffered; a dead one never does
            if _over(self._blocked_since_s, now_s, self.limits.write_timeout_s):
                self.transport.abort()
        elif self._is_overdue(now_s):
            self.transport.abort()

    def _is_overdue(self, now_s: float) -> bool:
        limits = self.limits
        idle_s = limits.header_timeout_s
        if self._was_used and not self._has_begun:
            idle_s = limits.keepalive_timeout_s
        return (
            _over(self._waiting_since_s, now_s, idle_s)
            or _over(self._blocked_since_s, now_s, limits.write_timeout_s)
            or _over(self._answered_since_s, now_s, limits.linger_timeout_s)
        )


def _over(since_s: float | None, now_s: float, bound_s: float) -> bool:
    return since_s is not None and now_s - since_s > bound_s


def _peer_uid(fileno: int) -> int:
    """The user id of the process at the other end of a unix socket (socket(7), SO_PEERCRED)."""
    with socket.socket(fileno=socket.dup(fileno)) as sock:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(raw)[1]
    return uid
