"""What a chat sends: messages, parameters, and which models can be asked what."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmos.abi.inference import GENERATE
from llmos.abi.registry import ModelVersion
from llmos.errors import InvalidRequest
from llmos.sdk.draw.found import label_bars, labels_of

EARLIER_IMAGE = "(an image that is no longer shown)"
"""What a model reads in place of one."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A model one can ask: in words where it generates, else for what its `kind` makes of one."""

    name: str
    kind: str

    @property
    def talks(self) -> bool:
        """Whether it holds a conversation."""
        return self.kind == GENERATE

    @property
    def looks(self) -> bool:
        """Whether what it is asked about is an image."""
        return self.kind.startswith("image")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that goes with a message; `kind` is its media type, as the browser says."""

    data: bytes
    kind: str
    name: str = ""

    @property
    def url(self) -> str:
        """The image itself, as a data URL."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode()}"


def spoken(words: str, picture: Picture | None) -> dict[str, Any]:
    """A message of the user: text, or with an image in parts."""
    if picture is None:
        return {"role": "user", "content": words}
    parts: list[dict[str, Any]] = [{"type": "text", "text": words}] if words else []
    parts.append({"type": "image_url", "image_url": {"url": picture.url}})
    return {"role": "user", "content": parts}


def speakers(models: Iterable[ModelVersion]) -> dict[str, Speaker]:
    """By name, of each the newest version: those that talk first, the test driver last."""
    newest: dict[str, ModelVersion] = {}
    for model in models:
        known = newest.get(model.name)
        if model.kinds and (known is None or known.created_ns < model.created_ns):
            newest[model.name] = model

    def place(model: ModelVersion) -> tuple[object, ...]:
        talks = GENERATE in model.kinds
        return model.driver == "echo", not talks, model.name != "pilot", model.name

    return {m.name: Speaker(m.name, m.kinds[0]) for m in sorted(newest.values(), key=place)}


def read_tools(text: str) -> list[dict[str, Any]]:
    """What a person wrote: OpenAI's tools, or bare functions. Raises InvalidRequest."""
    if not text.strip():
        return []
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"this is no JSON: {error}", param="tools") from None
    entries = given if isinstance(given, list) else [given]
    if not all(isinstance(entry, dict) for entry in entries):
        raise InvalidRequest("tools are a list of objects", param="tools")
    return [
        entry if "function" in entry else {"type": "function", "function": entry}
        for entry in entries
    ]


def sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the body that were filled in. Raises InvalidRequest."""
    made = {
        name: given[name]
        for name in ("temperature", "top_p", "max_tokens", "seed")
        if given.get(name) is not None
    }
    for name in ("max_tokens", "seed"):
        if name in made:
            made[name] = int(made[name])
    if tools := read_tools(given.get("tools") or ""):
        made["tools"] = tools
    if given.get("class") and given["class"] != "default":
        made["llmos"] = {"class": given["class"]}
    return made


def conversation(system: str, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a request, of whose images only the newest is sent."""
    head = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return [*head, *with_newest_image(history)]


def with_newest_image(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of earlier images only that there was one stays: each would be sent with every message."""
    kept: list[dict[str, Any]] = []
    has_image = False
    for message in reversed(history):
        parts = message["content"]
        if isinstance(parts, list):
            kept.append(_imageless(message) if has_image else message)
            has_image = True
        else:
            kept.append(message)
    return kept[::-1]


def _imageless(message: dict[str, Any]) -> dict[str, Any]:
    words = [part["text"] for part in message["content"] if part["type"] == "text"]
    return {**message, "content": "\n".join([*words, EARLIER_IMAGE])}


def finding(output: Any) -> str:
    """What a model made of one input, as markup: labels as bars, anything else as it is."""
    if labels := labels_of(output):
        return label_bars(labels)
    if isinstance(output, list) and len(output) > 16 and all(isinstance(x, float) for x in output):
        return f"<p>{len(output)} numbers: {', '.join(f'{x:.3f}' for x in output[:8])}, …</p>"
    text = json.dumps(output, ensure_ascii=False, indent=2, default=str)
    return f"<pre>{html.escape(text)}</pre>"
