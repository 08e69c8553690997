"""A message's `content`: a text, or parts of texts and images."""

from __future__ import annotations

import re
from typing import Any

from llmos.shapes.fields import fault

Content = str | list[dict[str, str]]
"""As it is read: parts are `{"text"}` and `{"image"}`, and there is an image among them."""

LATER_PARTS = ("input_audio", "file", "refusal")

DETAILS = ("auto", "low", "high")
"""Of an image. A model here reads every image in the one size it was made for."""

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
    if any("image" in part for part in parts):
        return parts
    return text_of(parts)


def text_of(content: Content) -> str:
    """What is written in it."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if "text" in part)


def images_of(content: Content) -> list[tuple[int, str]]:
    """Place and `data:` URL of each image."""
    parts = [] if isinstance(content, str) else content
    return [(i, part["image"]) for i, part in enumerate(parts) if "image" in part]


def _part(part: Any, at: str) -> dict[str, str]:
    if not isinstance(part, dict):
        raise fault("must be an object", at)
    kind = part.get("type")
    if kind in LATER_PARTS:
        what = _READS.get(kind, "")
        raise fault(f"parts of type {kind!r} are not supported{what}", f"{at}.type", "unsupported")
    if kind not in _KEYS:
        raise fault("must be 'text' or 'image_url'", f"{at}.type")
    for key in part:
        if key not in _KEYS[kind] | _SHARED_KEYS:
            raise fault("unknown field", f"{at}.{key[:64]}")
    if kind == "image_url":
        return {"image": _url(part.get("image_url"), f"{at}.image_url")}
    if not isinstance(text := part.get("text"), str):
        raise fault("must be a text", f"{at}.text")
    return {"text": text}


def _url(given: Any, at: str) -> str:
    if not isinstance(given, dict):
        raise fault("must be an object with 'url'", at)
    for key in given:
        if key not in {"url", "detail"}:
            raise fault("unknown field", f"{at}.{key[:64]}")
    if given.get("detail", "auto") not in DETAILS:
        raise fault(f"must be one of {', '.join(DETAILS)}", f"{at}.detail")
    url = given.get("url")
    if isinstance(url, str) and url[:8].lower().startswith(("http://", "https://")):
        text = "the server fetches nothing: send the image itself, as a data: URL"
        raise fault(text, f"{at}.url", "unsupported")
    if not isinstance(url, str) or not _DATA_URL.match(url):
        raise fault("must be a URL of the form data:image/png;base64,...", f"{at}.url")
    return url
