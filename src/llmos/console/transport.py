"""httpx over an ASGI application in this process: answers stream, and nothing is listened on.

httpx has an `ASGITransport`, which waits for the whole answer before it returns the first byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.types import ASGIApp, Message

MAX_AHEAD = 64
"""Pieces of an answer that wait for a slow reader; then the application waits."""

CLIENT = ("console", 0)


class InProcess(httpx.AsyncBaseTransport):
    """Every request is a call of `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(self._app, request)
        status, headers = await exchange.head()
        return httpx.Response(status, headers=headers, stream=exchange)


class _Exchange(httpx.AsyncByteStream):
    """One call of the application, and its answer as a stream."""

    def __init__(self, app: ASGIApp, request: httpx.Request) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self._body = aiter(request.stream)
        self._is_sent = False
        self._gone = asyncio.Event()
        self._pieces: asyncio.Queue[Message | None] = asyncio.Queue(MAX_AHEAD)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(app, _scope(request)), name="console-call")

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Status and headers. Raises httpx.RemoteProtocolError when the application gives none."""
        try:
            message = await self._pieces.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if message is None:
            await self._task  # raises what ended it
            raise httpx.RemoteProtocolError("the application ended without an answer")
        return message["status"], list(message["headers"])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._pieces.get()) is not None:
            if message["body"]:
                yield message["body"]
            if not message.get("more_body"):
                return
        raise httpx.RemoteProtocolError("the answer is not complete")

    async def aclose(self) -> None:
        """The reader leaves: the application learns it as it would of a closed connection."""
        self._gone.set()
        while not self._pieces.empty():  # a send that waits for room goes on, to nowhere
            self._pieces.get_nowait()
        await asyncio.wait({self._task})

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            if not self._gone.is_set():
                await self._pieces.put(None)

    async def _receive(self) -> Message:
        if not self._is_sent:
            piece = await anext(self._body, None)
            self._is_sent = piece is None
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._gone.is_set():
            await self._pieces.put(message)


def _scope(request: httpx.Request) -> dict[str, Any]:
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": CLIENT,
        "server": (url.host, url.port or 80),
        "extensions": {},
    }
