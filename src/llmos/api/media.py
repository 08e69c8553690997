"""Images and sound in JSON: base64, put into files, since bytes of that size pass no message."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.ids import new_id
from llmos.abi.inference import ChatPrompt, ItemsPrompt
from llmos.abi.principal import Action, Resource
from llmos.abi.program import Generate
from llmos.api.call import Call
from llmos.errors import InvalidRequest, PayloadTooLarge
from llmos.shapes.items import EARLIER
from llmos.shapes.parts import is_remote

KEYS = ("image", "audio")
"""Fields of an item whose text is the base64 of bytes, or a `data:` URL of them; a `text` may
stand beside one."""

_DATA_URL = re.compile(r"data:[A-Za-z0-9.+/-]{0,100}(?:;[A-Za-z0-9=._-]{1,100})*;base64,")


@asynccontextmanager
async def with_files(call: Call, wish: Generate) -> AsyncIterator[Generate]:
    """The same wish with every image and recording in a file, until the block ends.

    Raises InvalidRequest, PayloadTooLarge, DiskFull.
    """
    prompt = wish.prompt
    assert isinstance(prompt, ItemsPrompt)
    items = list(prompt.items)
    found = [(at, key, items[at][key]) for at, key in _media(items)]
    async with _stored(call, [(f"inputs.{at}.{key}", text) for at, key, text in found]) as blobs:
        for number, (at, key, _) in enumerate(found):
            items[at] = {k: v for k, v in items[at].items() if k != key} | {"blob": number}
        changed = msgspec.structs.replace(prompt, items=items, blobs=blobs)
        yield msgspec.structs.replace(wish, prompt=changed)


@asynccontextmanager
async def with_images(call: Call, wish: Generate) -> AsyncIterator[Generate]:
    """The same chat with every image that came with it in a file, until the block ends.

    Raises InvalidRequest, PayloadTooLarge, DiskFull.
    """
    prompt = wish.prompt
    assert isinstance(prompt, ChatPrompt)
    found = [part for message in prompt.messages for part in _images(message["content"])]
    most = call.edge.config.max_images
    if len(found) > most:
        own = [part["where"] for part in found if part["where"] != EARLIER]
        where = own[most] if len(own) > most else EARLIER
        raise InvalidRequest(f"{len(found)} images are more than {most}.", param=where)
    here = [part for part in found if not is_remote(_url(part))]
    async with _stored(call, [(_url_name(part), _url(part)) for part in here]) as blobs:
        numbers = {id(part): number for number, part in enumerate(here)}
        messages = [
            message | {"content": [_filed(part, numbers) for part in message["content"]]}
            if isinstance(message["content"], list)
            else message
            for message in prompt.messages
        ]
        changed = msgspec.structs.replace(prompt, messages=messages, blobs=blobs)
        yield msgspec.structs.replace(wish, prompt=changed)


def _images(content: Any) -> list[dict[str, Any]]:
    parts = content if isinstance(content, list) else []
    return [part for part in parts if part["type"] == "image_url"]


def _url(part: dict[str, Any]) -> str:
    url: str = part["image_url"]["url"]
    return url


def _url_name(part: dict[str, Any]) -> str:
    """Of a chat; a response's image has its URL by its own name."""
    where: str = part["where"]
    return f"{where}.image_url" + (".url" if where.startswith("messages.") else "")


def _filed(part: dict[str, Any], numbers: dict[int, int]) -> dict[str, Any]:
    number = numbers.get(id(part))
    if number is None:
        return part
    media_type = _url(part)[len("data:") :].partition(";")[0]
    made = {"type": "image", "blob": number, "media_type": media_type, "where": part["where"]}
    detail = part["image_url"].get("detail")
    return made if detail is None else made | {"detail": detail}


@asynccontextmanager
async def _stored(call: Call, found: list[tuple[str, str]]) -> AsyncIterator[list[BlobRef]]:
    """Files of texts of base64, each with its name in the body, until the block ends."""
    if not found:
        yield []
        return
    authorize(call)
    upload_id = new_id("upl")
    try:
        blobs = []
        with call.edge.uploading(call.principal.tenant_id):
            for number, (name, text) in enumerate(found):
                data = _decode(text, name, call.edge.config.max_media_bytes)
                blobs.append(await call.edge.sink.write(upload_id, str(number), _once(data)))
        yield blobs
    finally:
        await call.edge.sink.discard(upload_id)


def authorize(call: Call) -> None:
    """Bytes do not pass the gate, so its question is asked here."""
    tenant_id = call.principal.tenant_id
    call.edge.authorizer.authorize(
        call.principal, Action.WRITE_FILES, Resource("file", tenant_id=tenant_id)
    )


def _media(items: list[Any]) -> Iterator[tuple[int, str]]:
    """Place and field of each. Raises InvalidRequest for a file that the caller names."""
    for at, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        if "blob" in item:
            raise InvalidRequest("An input names no file here.", param=f"inputs.{at}.blob")
        found = [key for key in KEYS if item.keys() - {"text"} == {key}]
        if found and isinstance(item[found[0]], str):
            yield at, found[0]


def _decode(text: str, where: str, max_bytes: int) -> bytes:
    if match := _DATA_URL.match(text):
        text = text[match.end() :]
    if len(text) // 4 * 3 > max_bytes + 3:
        raise PayloadTooLarge(f"It is over the limit of {max_bytes} bytes.", param=where)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where!r} is neither base64 nor a data: URL.", param=where) from None


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
