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
from llmos.abi.inference import ItemsPrompt
from llmos.abi.principal import Action, Resource
from llmos.abi.program import Generate
from llmos.api.call import Call
from llmos.errors import InvalidRequest, PayloadTooLarge

KEYS = ("image", "audio")
"""Fields of an item whose text is the base64 of bytes, or a `data:` URL of them; a `text` may
stand beside one."""

_DATA_URL = re.compile(r"data:[A-Za-z0-9.+/-]{0,100}(?:;[A-Za-z0-9=._-]{1,100})*;base64,")


@asynccontextmanager
async def with_files(call: Call, wish: Generate, where: str = "") -> AsyncIterator[Generate]:
    """The same wish with every image and recording in a file, until the block ends. `where`: what
    the one there is is called in the body; else it is named by its number.

    Raises InvalidRequest, PayloadTooLarge, DiskFull.
    """
    prompt = wish.prompt
    assert isinstance(prompt, ItemsPrompt)
    found = list(_media(prompt.items))
    if not found:
        yield wish
        return
    authorize(call)
    upload_id = new_id("upl")
    try:
        items, blobs = list(prompt.items), list[BlobRef]()
        with call.edge.uploading(call.principal.tenant_id):
            for at, key, text in found:
                name = where or f"inputs.{at}.{key}"
                data = _decode(text, name, call.edge.config.max_media_bytes)
                blobs.append(await call.edge.sink.write(upload_id, str(at), _once(data)))
                rest = {name: value for name, value in items[at].items() if name != key}
                items[at] = rest | {"blob": len(blobs) - 1}
        changed = msgspec.structs.replace(prompt, items=items, blobs=blobs)
        yield msgspec.structs.replace(wish, prompt=changed)
    finally:
        await call.edge.sink.discard(upload_id)


def authorize(call: Call) -> None:
    """Bytes do not pass the gate, so its question is asked here."""
    tenant_id = call.principal.tenant_id
    call.edge.authorizer.authorize(
        call.principal, Action.WRITE_FILES, Resource("file", tenant_id=tenant_id)
    )


def _media(items: list[Any]) -> Iterator[tuple[int, str, str]]:
    """Place, field and text of each. Raises InvalidRequest for a file that the caller names."""
    for at, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        if "blob" in item:
            raise InvalidRequest("An input names no file here.", param=f"inputs.{at}.blob")
        found = [key for key in KEYS if item.keys() - {"text"} == {key}]
        if found and isinstance(item[found[0]], str):
            yield at, found[0], item[found[0]]


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
