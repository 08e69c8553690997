"""HTTP as a storm's clients speak it: one connection each, and it is known what was sent.

An answer that does not come back whole is `Unanswered`: nobody knows what was done. A connection
that cannot be made is `Unreachable`: nothing was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, NamedTuple

ANSWER_TIMEOUT_S = 20.0


class Unreachable(Exception):
    """Nothing was sent."""


class Unanswered(Exception):
    """It was sent, and no whole answer came."""


class Answer(NamedTuple):
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One client's connection to a port of this machine; made again when it broke."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self.token = token
        self._pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Raises Unreachable, Unanswered."""
        data = b"" if body is None else body if isinstance(body, bytes) else _encode(body)
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self._port}"]
        lines += [f"Authorization: Bearer {self.token}", f"Content-Length: {len(data)}"]
        given = {"Content-Type": "application/json", **(headers or {})}
        lines += [f"{name}: {value}" for name, value in given.items()]
        reader, writer = await self._connected()
        try:
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await writer.drain()
                answer, stays = await _read(reader)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.drop()
            raise Unanswered(repr(error)) from None
        except asyncio.CancelledError:
            self.drop()
            raise
        if not stays:
            self.drop()
        return answer

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._pair is None or self._pair[0].at_eof():
            self.drop()
            try:
                self._pair = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                raise Unreachable(repr(error)) from None
        return self._pair

    def drop(self) -> None:
        if self._pair is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._pair[1].close()
            self._pair = None


def _encode(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


async def _read(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ")[1])
    headers = {}
    for line in head[1:-2]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join([chunk async for chunk in _chunks(reader)])
    else:
        body = await reader.readexactly(int(headers["content-length"]))
    return Answer(status, body), headers.get("connection", "").lower() != "close"


async def _chunks(reader: asyncio.StreamReader):  # type: ignore[no-untyped-def]
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()
