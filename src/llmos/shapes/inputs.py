"""Reading the bodies of the inference routes: screened against the table, then validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from llmos.errors import InvalidRequest
from llmos.shapes.chat import ChatBody, Message
from llmos.shapes.check import Shape, screen, validate
from llmos.shapes.completions import CompletionsBody
from llmos.shapes.options import InferenceBody, LlmosOptions, StreamOptions

B = TypeVar("B", bound=InferenceBody)
S = TypeVar("S", bound=Shape)


def read_chat(body: Mapping[str, Any], max_messages: int) -> ChatBody:
    """A body of /v1/chat/completions. Raises InvalidRequest and its kinds."""
    kept = screen(ChatBody, body)
    messages = kept.get("messages")
    if isinstance(messages, list):
        if len(messages) > max_messages:
            raise InvalidRequest(f"More than {max_messages} messages.", param="messages")
        kept["messages"] = [
            screen(Message, m, f"messages.{i}") if isinstance(m, dict) else m
            for i, m in enumerate(messages)
        ]
    return _finish(ChatBody, kept)


def read_completions(
    body: Mapping[str, Any], max_prompts: int, max_prompt_tokens: int
) -> CompletionsBody:
    """A body of /v1/completions. Raises InvalidRequest and its kinds."""
    read = _finish(CompletionsBody, screen(CompletionsBody, body))
    if len(read.prompt) > max_prompts:
        raise InvalidRequest(f"More than {max_prompts} prompts.", param="prompt")
    if any(isinstance(p, list) and len(p) > max_prompt_tokens for p in read.prompt):
        raise InvalidRequest(f"A prompt of over {max_prompt_tokens} tokens.", param="prompt")
    return read


def read_plain(shape: type[S], body: Mapping[str, Any]) -> S:
    """A body of our own API: its fields and no others."""
    return validate(shape, screen(shape, body))


def read_nested(shape: type[S], body: Mapping[str, Any]) -> S:
    """As `read_plain`, for a body whose fields are shapes: near matches are named in them too."""
    kept = screen(shape, body)
    for name, field in shape.model_fields.items():
        inner, kind = kept.get(field.alias or name), field.annotation
        if isinstance(inner, dict) and isinstance(kind, type) and issubclass(kind, Shape):
            kept[name] = screen(kind, inner, name)
    return validate(shape, kept)


def _finish(shape: type[B], kept: dict[str, Any]) -> B:
    for name, kind in (("llmos", LlmosOptions), ("stream_options", StreamOptions)):
        inner = kept.get(name)
        if isinstance(inner, dict):
            kept[name] = screen(kind, inner, name)
    read = validate(shape, kept)
    if read.stream_options is not None and not read.stream:
        raise InvalidRequest("'stream_options' needs 'stream'.", param="stream_options")
    return read
