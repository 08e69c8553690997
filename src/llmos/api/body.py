"""Reading request bodies: bounded in bytes and in time, whole or in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from llmos.api.call import Call, ClientGone
from llmos.errors import InvalidRequest, PayloadTooLarge
from llmos.shapes.strict_json import parse_object


async def read_json(call: Call) -> dict[str, Any]:
    """The JSON object of a body. Raises InvalidRequest, PayloadTooLarge, ClientGone."""
    _check_kind(call)
    return parse_object(await _read_all(call))


async def read_optional_json(call: Call) -> dict[str, Any]:
    """As `read_json`; no body at all is an empty object."""
    body = await _read_all(call)
    if not body:
        return {}
    _check_kind(call)
    return parse_object(body)


def _check_kind(call: Call) -> None:
    kind = call.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise InvalidRequest("The content-type must be application/json.", param="content-type")


async def _read_all(call: Call) -> bytes:
    config = call.edge.config
    return await read_body(call, config.max_body_bytes, config.body_timeout_s)


async def read_body(call: Call, max_bytes: int, timeout_s: float) -> bytes:
    """A whole body. Raises PayloadTooLarge (at once when it is declared), InvalidRequest."""
    _check_declared(call, max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            body, more = await _receive(call)
            if not more and len(body) <= max_bytes:
                return body
            buffer = bytearray(body)
            while more and len(buffer) <= max_bytes:
                body, more = await _receive(call)
                buffer += body
    except TimeoutError:
        raise _too_slow(timeout_s) from None
    if len(buffer) > max_bytes:
        raise _too_large(max_bytes)
    return bytes(buffer)


async def body_chunks(call: Call, max_bytes: int, timeout_s: float) -> AsyncGenerator[bytes, None]:
    """A body as it arrives; `timeout_s` bounds each pause. Raises as `read_body` does."""
    _check_declared(call, max_bytes)
    total, more = 0, True
    while more:
        try:
            async with asyncio.timeout(timeout_s):
                body, more = await _receive(call)
        except TimeoutError:
            raise _too_slow(timeout_s) from None
        total += len(body)
        if total > max_bytes:
            raise _too_large(max_bytes)
        if body:
            yield body


async def _receive(call: Call) -> tuple[bytes, bool]:
    message = await call.receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


def _check_declared(call: Call, max_bytes: int) -> None:
    if call.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise InvalidRequest("Compressed bodies are not accepted.", param="content-encoding")
    declared = call.headers.get(b"content-length", b"0")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > max_bytes):
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is over the limit of {max_bytes} bytes.")


def _too_slow(timeout_s: float) -> InvalidRequest:
    return InvalidRequest(f"The body did not arrive within {timeout_s:g} s.", param="body")
