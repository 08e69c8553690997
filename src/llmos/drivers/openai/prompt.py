"""A prompt for a model whose tokens nobody here knows: a token is a character.

What `prepare` makes of a text are its code points. A chat, or token ids of the remote's own, are
JSON, after a code that no character has. `generated` are code points of the answer so far.
"""

from __future__ import annotations

import json
import math
from typing import Any

from llmos.abi.inference import ChatPrompt, Prompt, TextPrompt, TokensPrompt
from llmos.errors import InvalidRequest

VOCAB_SIZE = 0x110002
"""Every code point, and two marks."""

CHAT, IDS = (mark.to_bytes(4, "little") for mark in (0x110000, 0x110001))

MESSAGE_TOKENS = 4
"""What a template adds to a message."""

IMAGE_TOKENS = 1000
"""Of an image, about."""

_MAX_ID = (1 << 31) - 1


def encode(prompt: Prompt) -> bytes:
    """Raises InvalidRequest."""
    if isinstance(prompt, ChatPrompt):
        chat = {
            "messages": prompt.messages,
            "tools": prompt.tools,
            "kwargs": prompt.template_kwargs,
            "choice": prompt.tool_choice,
            "parallel": prompt.parallel_tools,
        }
        return CHAT + _pack(json.dumps(chat, ensure_ascii=False))
    if isinstance(prompt, TextPrompt):
        if not prompt.text:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return _pack(prompt.text)
    if not isinstance(prompt, TokensPrompt):
        raise InvalidRequest("this model takes texts, chats and token ids", param="prompt")
    if not prompt.token_ids or not all(0 <= i <= _MAX_ID for i in prompt.token_ids):
        raise InvalidRequest("token ids are numbers from 0 on, one at least", param="prompt")
    return IDS + _pack(json.dumps(prompt.token_ids))


def decode(tokens: bytes) -> Prompt:
    """The inverse of `encode`. Raises InvalidRequest."""
    mark, rest = tokens[:4], tokens[4:]
    if mark not in (CHAT, IDS):
        text = unpack(tokens, "prompt")
        if not text:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return TextPrompt(text)
    try:
        found = json.loads(unpack(rest, "prompt"))
        if mark == IDS:
            return TokensPrompt([int(i) for i in found])
        return ChatPrompt(
            found["messages"],
            found["tools"],
            found["kwargs"],
            tool_choice=str(found["choice"]),
            parallel_tools=bool(found["parallel"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidRequest("the prompt is not what `prepare` makes", param="prompt") from None


def estimate(prompt: Prompt, chars_per_token: float) -> int:
    """How many tokens it is, about; one at least."""
    if isinstance(prompt, TokensPrompt):
        return len(prompt.token_ids)
    if isinstance(prompt, TextPrompt):
        return estimate_chars(len(prompt.text), chars_per_token)
    assert isinstance(prompt, ChatPrompt)
    num_chars = len(json.dumps(prompt.tools, ensure_ascii=False)) if prompt.tools else 0
    fixed = 0
    for message in prompt.messages:
        fixed += MESSAGE_TOKENS
        chars, images = _weigh(message.get("content"))
        num_chars += chars + len(json.dumps(message.get("tool_calls") or ""))
        fixed += images * IMAGE_TOKENS
    return fixed + estimate_chars(num_chars, chars_per_token)


def estimate_chars(num_chars: int, chars_per_token: float) -> int:
    """Of so many characters; none only of none."""
    return math.ceil(num_chars / chars_per_token)


def unpack(packed: bytes, param: str) -> str:
    """Code points, each int32, as text. Raises InvalidRequest."""
    try:
        return packed.decode("utf-32-le")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{param} has a token that is no character", param=param) from None


def _pack(text: str) -> bytes:
    try:
        return text.encode("utf-32-le")
    except UnicodeEncodeError:
        raise InvalidRequest("the prompt has half of a character", param="prompt") from None


def _weigh(content: Any) -> tuple[int, int]:
    """Characters and images of a message's content."""
    if isinstance(content, str):
        return len(content), 0
    chars = images = 0
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            chars += len(part["text"])
        else:
            images += 1
    return chars, images
