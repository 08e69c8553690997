"""A message's `content`: a text, or parts of texts and images."""

from __future__ import annotations

import re
from typing import Any

from llmos.shapes.fields import fault

Content = str | list[dict[str, Any]]
"""As it is read: parts as OpenAI has them, of type `text` or `image_url`, one image at least."""

LATER_PARTS = ("input_audio", "file", "refusal")

DETAILS = ("auto", "low", "high")
"""Of an image: for remote models. One here reads every image in the size it was made for."""

MAX_URL_CHARS = 8192
"""Of a URL of something that is elsewhere."""

_KEYS = {"text": {"text"}, "image_url": {"image_url"}}
_SHARED_KEYS = {"type", "prompt_cache_breakpoint"}
_READS = {"input_audio": ": no model here hears sound in a chat"}
_DATA_URL = re.compile(r"data:image/[A-Za-z0-9.+-]{1,64};base64,")


def read_content(value: Any) -> Content:
    """Without an image one text, its parts joined by newlines: templates take plain text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise fault("must be a text or a non-empty list of parts")
    parts = [_part(part, str(i)) for i, part in enumerate(value)]
    if any(part["type"] == "image_url" for part in parts):
        return parts
    return text_of(parts)


def text_of(content: Content) -> str:
    """What is written in it."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def images_of(content: Content) -> list[int]:
    """Places of its images."""
    parts = [] if isinstance(content, str) else content
    return [i for i, part in enumerate(parts) if part["type"] == "image_url"]


def located(content: Content, where: str) -> Content:
    """Images told where they stand in the body, for who finds fault with them."""
    if isinstance(content, str):
        return content
    return [
        part if part["type"] == "text" else part | {"where": f"{where}.{i}"}
        for i, part in enumerate(content)
    ]


def is_remote(url: str) -> bool:
    """It names an image that is elsewhere, and does not hold it."""
    return url[:8].lower().startswith(("http://", "https://"))


def find_url_fault(url: Any) -> str | None:
    """Of what is to be an image's own bytes, or say where it is."""
    if isinstance(url, str) and is_remote(url):
        return f"is over {MAX_URL_CHARS} characters long" if len(url) > MAX_URL_CHARS else None
    if isinstance(url, str) and _DATA_URL.match(url):
        return None
    return "must be a URL of the form data:image/png;base64,..."


def _part(part: Any, at: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise fault("must be an object", at)
    kind = part.get("type")
    if kind in LATER_PARTS:
        what = _READS.get(kind, "")
        raise fault(f"parts of type {kind!r} are not supported{what}", f"{at}.type", "unsupported")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise fault("must be 'text' or 'image_url'", f"{at}.type")
    for key in part:
        if key not in _KEYS[kind] | _SHARED_KEYS:
            raise fault("unknown field", f"{at}.{key[:64]}")
    if kind == "image_url":
        return {"type": kind, "image_url": _image(part.get("image_url"), f"{at}.image_url")}
    if not isinstance(text := part.get("text"), str):
        raise fault("must be a text", f"{at}.text")
    return {"type": kind, "text": text}


def _image(given: Any, at: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise fault("must be an object with 'url'", at)
    for key in given:
        if key not in {"url", "detail"}:
            raise fault("unknown field", f"{at}.{key[:64]}")
    url = given.get("url")
    if (wrong := find_url_fault(url)) is not None:
        raise fault(wrong, f"{at}.url")
    image = {"url": url}
    if (detail := given.get("detail")) is not None:
        if detail not in DETAILS:
            raise fault(f"must be one of {', '.join(DETAILS)}", f"{at}.detail")
        image["detail"] = detail
    return image
