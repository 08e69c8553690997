"""Items of a response's conversation: what a client may write, as it is kept and as a model reads
it. Texts, images and calls of functions: other tools and files are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from llmos.errors import InvalidRequest, UnsupportedParameter
from llmos.shapes.parts import DETAILS, find_url_fault

Item = dict[str, Any]
NewId = Callable[[], str]

EARLIER = "previous_response_id"
"""Where in a body all that is of an earlier response is."""

ROLES = ("user", "system", "developer", "assistant")
MAX_ITEM_ID_CHARS = 64

MAX_CALL_ID_CHARS = 128

_CALL_KEYS = {
    "function_call": {"arguments", "call_id", "name"},
    "function_call_output": {"call_id", "output"},
}
_TEXTS = ("input_text", "output_text")
_IMAGE = "input_image"
_LATER_PARTS = ("input_file", "input_audio", "refusal", "reasoning_text")
_KEYS = {"type", "role", "content", "id", "status", "phase"}
_IMAGE_KEYS = {"type", "image_url", "detail", "file_id", "prompt_cache_breakpoint"}
_PART_KEYS = {"type", "text", "annotations", "logprobs", "prompt_cache_breakpoint"}


def read_items(given: Any, new_id: NewId) -> list[Item]:
    """The conversation of a body's `input`, in one form. Raises InvalidRequest and its kinds."""
    if isinstance(given, str):
        return [text_item(new_id(), "user", [given])]
    if not isinstance(given, list) or not given:
        raise InvalidRequest("'input' must be a text or a non-empty list of items.", param="input")
    return [_item(one, f"input.{i}", new_id) for i, one in enumerate(given)]


def text_item(
    item_id: str,
    role: str,
    texts: Sequence[str],
    status: Literal["in_progress", "completed", "incomplete"] = "completed",
) -> Item:
    """A message as OpenAI shows it."""
    return {
        "id": item_id,
        "type": "message",
        "role": role,
        "status": status,
        "content": [text_part(text, is_output=role == "assistant") for text in texts],
    }


def text_part(
    text: str, is_output: bool = True, logprobs: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A text as part of a message."""
    if is_output:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}
    return {"type": "input_text", "text": text}


def call_item(item_id: str, call_id: str, name: str, arguments: str, status: str) -> Item:
    """A call of a function as OpenAI shows it."""
    return {
        "id": item_id,
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def has_images(items: Sequence[Item]) -> bool:
    """Anywhere in a conversation."""
    return any(part["type"] == _IMAGE for item in items for part in item.get("content", ()))


def messages_of(
    items: Sequence[Item], instructions: str | None, num_before: int = 0
) -> list[dict[str, Any]]:
    """What the chat template gets; `developer` is the system's voice under a newer name. The first
    `num_before` items are of an earlier response.

    Calls that follow one another, or a text of the assistant's, are one message.
    """
    return [message for message, _ in _placed(items, instructions, num_before)]


def places_of(items: Sequence[Item], instructions: str | None, num_before: int) -> list[str]:
    """Where in the body each of `messages_of` is."""
    return [where for _, where in _placed(items, instructions, num_before)]


def _placed(
    items: Sequence[Item], instructions: str | None, num_before: int
) -> list[tuple[dict[str, Any], str]]:
    made: list[tuple[dict[str, Any], str]] = []
    if instructions is not None:
        made.append(({"role": "system", "content": instructions}, "instructions"))
    for at, item in enumerate(items):
        where = f"input.{at - num_before}" if at >= num_before else EARLIER
        if item["type"] == "function_call":
            if not made or made[-1][0]["role"] != "assistant":
                made.append(({"role": "assistant", "content": ""}, where))
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            made[-1][0].setdefault("tool_calls", []).append(call)
        elif item["type"] == "function_call_output":
            said = {"tool_call_id": item["call_id"], "content": item["output"]}
            made.append(({"role": "tool", **said}, where))
        else:
            role = "system" if item["role"] == "developer" else item["role"]
            content = _content(item["content"], where)
            made.append(({"role": role, "content": content}, where))
    return made


def _content(parts: list[dict[str, Any]], where: str) -> str | list[dict[str, Any]]:
    """As a chat has it: one text, or parts where an image is among them."""
    if not any(part["type"] == _IMAGE for part in parts):
        return "\n".join(part["text"] for part in parts)
    return [
        _image_in_chat(part, where if where == EARLIER else f"{where}.content.{i}")
        if part["type"] == _IMAGE
        else {"type": "text", "text": part["text"]}
        for i, part in enumerate(parts)
    ]


def _image_in_chat(part: dict[str, Any], where: str) -> dict[str, Any]:
    image = {"url": part["image_url"], "detail": part["detail"]}
    return {"type": "image_url", "image_url": image, "where": where}


def _item(given: Any, at: str, new_id: NewId) -> Item:
    if not isinstance(given, dict):
        raise InvalidRequest(f"{at!r} must be an object.", param=at)
    kind = given.get("type", "message")
    if isinstance(kind, str) and kind in _CALL_KEYS:
        return _call_part(given, kind, at, new_id)
    if kind != "message":
        name = kind[:64] if isinstance(kind, str) else "?"
        raise UnsupportedParameter(
            f"{at!r}: items of type {name!r} are not supported by this server.", param=f"{at}.type"
        )
    for key in given:
        if key not in _KEYS:
            raise InvalidRequest(f"Unknown field {at}.{key[:64]!r}.", param=f"{at}.{key[:64]}")
    role = given.get("role")
    if role not in ROLES:
        raise InvalidRequest(f"'{at}.role' is not one of {', '.join(ROLES)}.", param=f"{at}.role")
    item = text_item(_id(given, at, new_id), role, [])
    item["content"] = _parts(given.get("content"), role, f"{at}.content")
    return item


def _parts(content: Any, role: str, at: str) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        return [text_part(text, is_output=role == "assistant") for text in _texts(content, at)]
    found = []
    for i, part in enumerate(content):
        if isinstance(part, dict) and part.get("type") == _IMAGE:
            if role != "user":
                raise InvalidRequest("Images belong to the role 'user'.", param=f"{at}.{i}")
            found.append(_image(part, f"{at}.{i}"))
        else:
            found.append(text_part(_text(part, f"{at}.{i}"), is_output=role == "assistant"))
    return found or [text_part(text) for text in _texts(content, at)]


def _image(part: dict[str, Any], at: str) -> dict[str, Any]:
    for key in part:
        if key not in _IMAGE_KEYS:
            raise InvalidRequest(f"Unknown field {at}.{key[:64]!r}.", param=f"{at}.{key[:64]}")
    if part.get("file_id") is not None:
        raise UnsupportedParameter(
            f"'{at}.file_id' is not supported: send the image itself, as a data: URL.",
            param=f"{at}.file_id",
        )
    if (wrong := find_url_fault(part.get("image_url"))) is not None:
        raise InvalidRequest(f"'{at}.image_url' {wrong}.", param=f"{at}.image_url")
    detail = part.get("detail") or "auto"
    if detail not in DETAILS:
        raise InvalidRequest(
            f"'{at}.detail' is not one of {', '.join(DETAILS)}.", param=f"{at}.detail"
        )
    return {"type": _IMAGE, "image_url": part["image_url"], "detail": detail}


def _call_part(given: Mapping[str, Any], kind: str, at: str, new_id: NewId) -> Item:
    """A call, or what its function said."""
    for key in given:
        if key not in _CALL_KEYS[kind] | {"id", "type", "status"}:
            raise InvalidRequest(f"Unknown field {at}.{key[:64]!r}.", param=f"{at}.{key[:64]}")
    values = {}
    for key in sorted(_CALL_KEYS[kind]):
        value = given.get(key)
        if key == "output" and isinstance(value, list):
            value = "\n".join(_texts(value, f"{at}.output"))
        if not isinstance(value, str):
            raise InvalidRequest(f"'{at}.{key}' must be a text.", param=f"{at}.{key}")
        values[key] = value
    if not 1 <= len(values["call_id"]) <= MAX_CALL_ID_CHARS:
        raise InvalidRequest(f"'{at}.call_id' is no call's id.", param=f"{at}.call_id")
    return {"id": _id(given, at, new_id), "type": kind, **values, "status": "completed"}


def _id(given: Mapping[str, Any], at: str, new_id: NewId) -> str:
    """An item that was an answer's keeps its id."""
    item_id = given.get("id")
    if item_id is None:
        return new_id()
    if not isinstance(item_id, str) or not 1 <= len(item_id) <= MAX_ITEM_ID_CHARS:
        raise InvalidRequest(f"'{at}.id' is no item's id.", param=f"{at}.id")
    return item_id


def _texts(content: Any, at: str) -> list[str]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list) or not content:
        raise InvalidRequest(f"{at!r} must be a text or a non-empty list of text parts.", param=at)
    return [_text(part, f"{at}.{i}") for i, part in enumerate(content)]


def _text(part: Any, at: str) -> str:
    if not isinstance(part, dict):
        raise InvalidRequest(f"{at!r} must be an object.", param=at)
    kind = part.get("type")
    if kind in _LATER_PARTS:
        raise UnsupportedParameter(
            f"{at!r}: parts of type {kind!r} are not supported by this server.", param=f"{at}.type"
        )
    if kind not in _TEXTS:
        raise InvalidRequest(f"'{at}.type' is not 'input_text'.", param=f"{at}.type")
    for key in part:
        if key not in _PART_KEYS:
            raise InvalidRequest(f"Unknown field {at}.{key[:64]!r}.", param=f"{at}.{key[:64]}")
    if not isinstance(text := part.get("text"), str):
        raise InvalidRequest(f"'{at}.text' must be a text.", param=f"{at}.text")
    return text
