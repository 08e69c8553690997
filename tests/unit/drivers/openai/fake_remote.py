"""An OpenAI-compatible server in this process: it answers as it is told, well or badly.

By itself it goes on with a text letter by letter: what follows depends on the first letter and the
length of all before, so that an answer that is asked for again after its first half goes on as it
would have. A letter is a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PACE_S = 0.05


def next_letter(text: str) -> str:
    return LETTERS[(7 * len(text) + ord(text[0])) % 26]


@dataclass(eq=False)
class Exchange:
    """One request, and the way to answer it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    go: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        """What is to be gone on with."""
        if "messages" in self.body:
            return "".join(message["content"] or "" for message in self.body["messages"])
        prompt = self.body["prompt"]
        return prompt if isinstance(prompt, str) else "".join(map(chr, prompt))

    async def head(
        self, status: int = 200, kind: str = "text/event-stream", more: str = "", length: int = -1
    ) -> None:
        size = "Transfer-Encoding: chunked" if length < 0 else f"Content-Length: {length}"
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{size}\r\n{more}\r\n"
        self.writer.write(head.encode())
        await self.writer.drain()

    async def write(self, data: bytes) -> None:
        if data:
            self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await self.writer.drain()

    async def event(self, chunk: Any) -> None:
        await self.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    async def say(self, text: str) -> None:
        delta: dict[str, Any] = {"index": 0, "finish_reason": None}
        delta |= {"delta": {"content": text}} if "messages" in self.body else {"text": text}
        await self.event({"choices": [delta]})

    async def end(self, reason: str, num_tokens: int, *, has_usage: bool = True) -> None:
        await self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if has_usage and self.body.get("stream_options"):
            usage = {"prompt_tokens": len(self.text), "completion_tokens": num_tokens}
            await self.event({"choices": [], "usage": usage})
        await self.write(b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def whole(
        self, status: int, body: bytes, kind: str = "application/json", more: str = ""
    ) -> None:
        await self.head(status, kind, more, len(body))
        self.writer.write(body)
        await self.writer.drain()


Script = Callable[[Exchange], Awaitable[None]]


async def go_on(exchange: Exchange) -> None:
    """As the module says, a letter at each `tick`."""
    await exchange.head()
    exchange.go.set()
    text, num_tokens = exchange.text, exchange.body.get("max_tokens", 16)
    for _ in range(num_tokens):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(exchange.go.wait(), PACE_S)
        exchange.go.clear()
        letter = next_letter(text)
        await exchange.say(letter)
        text += letter
    await exchange.end("length", num_tokens)


class FakeRemote:
    """Serves from construction to `close`. `script` may be changed at any time; `seen` are the
    requests that have come."""

    def __init__(self, script: Script = go_on) -> None:
        self.script = script
        self.seen: list[Exchange] = []
        self.num_connections = 0
        self._open: set[Exchange] = set()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._up = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._up.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def tick(self) -> None:
        """Every stream may send one letter more, now."""
        self._loop.call_soon_threadsafe(self._tick)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _tick(self) -> None:
        for exchange in self._open:
            exchange.go.set()

    def _run(self) -> None:
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._up.set()
        self._loop.run_forever()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = [line.split(": ", 1) for line in head[1:] if line]
        headers = {name.lower(): value for name, value in fields}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        exchange = Exchange(head[0].split()[1], headers, body, reader, writer)
        self.seen.append(exchange)
        self._open.add(exchange)
        try:
            await self.script(exchange)
        finally:
            self._open.discard(exchange)
        return not writer.is_closing()
