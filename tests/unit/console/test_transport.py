"""Calls in memory: they stream, and whoever leaves is noticed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from llmos.console.transport import InProcess


def _client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="http://console", transport=InProcess(app))


async def _start(send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})


def test_a_request_arrives_whole() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        assert scope["method"] == "POST"
        assert (scope["path"], scope["query_string"]) == ("/é x", b"q=1")
        await _start(send, 201)
        await send({"type": "http.response.body", "body": body + b"!"})

    async def run() -> None:
        async with _client(app) as client:
            answer = await client.post("/%C3%A9%20x?q=1", content=b"hello")
            assert (answer.status_code, answer.content, answer.headers["a"]) == (
                201,
                b"hello!",
                "b",
            )

    asyncio.run(run())


def test_pieces_come_before_the_end() -> None:
    async def run() -> None:
        go_on = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await _start(send)
            await send({"type": "http.response.body", "body": b"1", "more_body": True})
            await go_on.wait()
            await send({"type": "http.response.body", "body": b"2"})

        async with _client(app) as client, client.stream("GET", "/") as answer:
            pieces = aiter(answer.aiter_bytes())
            assert await anext(pieces) == b"1"
            go_on.set()
            assert [piece async for piece in pieces] == [b"2"]

    asyncio.run(run())


def test_leaving_early_is_a_disconnect() -> None:
    async def run() -> None:
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while (await receive())["more_body"]:
                pass
            await _start(send)
            watching = asyncio.create_task(receive())
            while not watching.done():
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0)
            seen.append(watching.result()["type"])

        async with _client(app) as client, client.stream("GET", "/") as answer:
            assert await anext(aiter(answer.aiter_bytes())) == b"x"
        assert seen == ["http.disconnect"]

    asyncio.run(run())


def test_an_application_that_says_nothing_is_an_error() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        return

    async def halting(scope: Any, receive: Any, send: Any) -> None:
        await _start(send)
        await send({"type": "http.response.body", "body": b"1", "more_body": True})

    async def run(app: Any) -> None:
        async with _client(app) as client:
            await client.get("/")

    for app in (silent, halting):
        with pytest.raises(httpx.RemoteProtocolError):
            asyncio.run(run(app))
