"""Images of a chat on their way to a remote: as they came, through a file of their own.

The preparer reads what the request's owner keeps, and is the only one who may; the driver reads
what the preparer has spilled.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.inference import ChatPrompt, PrepareItem, Prompt, WorkItem
from llmos.errors import EngineFailed, InvalidRequest, StorageError


def spill_images(item: PrepareItem) -> tuple[bytes, str]:
    """What the driver needs to read them, and the file they are in. Raises InvalidRequest,
    StorageError."""
    prompt = item.prompt
    if not isinstance(prompt, ChatPrompt) or not prompt.blobs:
        return b"", ""
    sizes = []
    try:
        with Path(item.spill).open("xb") as file:
            for blob in prompt.blobs:
                data = Path(blob.path or "").read_bytes()
                if f"sha256:{hashlib.sha256(data).hexdigest()}" != blob.digest:
                    raise InvalidRequest("the file is not the one that was named", param="messages")
                sizes.append(file.write(data))
    except OSError as error:
        raise StorageError(f"an image cannot be passed on: {error.strerror}") from error
    return msgspec.msgpack.encode(sizes), item.spill


def with_images(prompt: Prompt, item: WorkItem) -> Prompt:
    """A chat as OpenAI has it. Raises InvalidRequest for what `spill_images` has not made,
    EngineFailed."""
    if not isinstance(prompt, ChatPrompt):
        return prompt
    images = _read(item)
    try:
        messages = [_with_images(message, images) for message in prompt.messages]
    except (IndexError, KeyError, TypeError):
        raise InvalidRequest("the prompt is not what `prepare` makes", param="messages") from None
    return msgspec.structs.replace(prompt, messages=messages)


def _read(item: WorkItem) -> list[bytes]:
    if not item.payload:
        return []
    try:
        sizes = msgspec.msgpack.decode(item.payload, type=list[int])
    except msgspec.DecodeError:
        raise InvalidRequest("the request is not what `prepare` makes", param="messages") from None
    try:
        with Path(item.spill).open("rb") as file:
            found = [file.read(size) for size in sizes]
    except OSError as error:
        raise EngineFailed(f"what was prepared is gone: {error.strerror}") from error
    if [len(data) for data in found] != sizes:
        raise EngineFailed("what was prepared is not whole")
    return found


def _with_images(message: dict[str, Any], images: list[bytes]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return message | {"content": [_part(part, images) for part in content]}


def _part(part: dict[str, Any], images: list[bytes]) -> dict[str, Any]:
    """Without what is only for us."""
    if part["type"] != "image":
        return {name: value for name, value in part.items() if name != "where"}
    data = base64.b64encode(images[part["blob"]]).decode()
    image = {"url": f"data:{part['media_type']};base64,{data}"}
    if "detail" in part:
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}
