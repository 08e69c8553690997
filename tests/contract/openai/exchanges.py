"""What a remote may do to a request, well and badly."""

from __future__ import annotations

import asyncio
import json

from tests.unit.drivers.openai.fake_remote import Exchange


async def at_once(exchange: Exchange) -> None:
    await exchange.head()
    for letter in "good":
        await exchange.say(letter)
    await exchange.end("stop", 4)


async def hang(exchange: Exchange) -> None:
    await asyncio.sleep(3600)


async def hang_after_two(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.say("a")
    await exchange.say("b")
    await asyncio.sleep(3600)


async def nothing_but_keep_alives(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.say("a")
    await exchange.say("b")
    while True:
        await exchange.write(b": still here\n\n")
        await asyncio.sleep(0.05)


async def html(exchange: Exchange) -> None:
    await exchange.whole(200, b"<html>Welcome to nginx!</html>", "text/html")


async def error_500(exchange: Exchange) -> None:
    await exchange.whole(500, b'{"error": {"message": "sk-very broken"}}')


async def error_401(exchange: Exchange) -> None:
    await exchange.whole(401, b'{"error": {"message": "Incorrect API key: sk-very"}}')


async def close_at_once(exchange: Exchange) -> None:
    exchange.writer.close()


async def close_in_mid_answer(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.say("ab")
    exchange.writer.transport.abort()


async def end_too_early(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.say("ab")
    exchange.writer.write(b"0\r\n\r\n")
    await exchange.writer.drain()


async def broken_events(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.say("ab")
    await exchange.write(b"data: {not json\n\n")


async def no_events(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.write(b"hello\n\n\nid: 5\n\n")
    exchange.writer.write(b"0\r\n\r\n")
    await exchange.writer.drain()


async def endless_event(exchange: Exchange) -> None:
    await exchange.head()
    for _ in range(200):
        await exchange.write(b"data: " + b"x" * 65536)


async def error_in_stream(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.say("ab")
    await exchange.event({"error": {"message": "out of memory", "code": 500}})


async def whole_json(exchange: Exchange) -> None:
    message = {"choices": [{"message": {"content": "good"}, "finish_reason": "stop"}]}
    await exchange.whole(200, json.dumps(message).encode())


async def no_usage(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.say("go")
    await exchange.say("od")
    await exchange.end("stop", 4, has_usage=False)


async def redirect(exchange: Exchange) -> None:
    await exchange.whole(302, b"", more="Location: http://127.0.0.1:9/elsewhere\r\n")


BEFORE = [hang, html, error_500, error_401, close_at_once, no_events, endless_event, redirect]

AFTER = [
    hang_after_two,
    nothing_but_keep_alives,
    close_in_mid_answer,
    end_too_early,
    broken_events,
    error_in_stream,
]

SHORT = {"connect_s": 5, "first_token_s": 0.3, "between_tokens_s": 0.3}
