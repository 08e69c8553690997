"""Log-probabilities as OpenAI's two routes tell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmos.abi.events import Logprobs, TokenLogprob


def chat_logprobs(found: Sequence[Logprobs] | None) -> dict[str, Any] | None:
    """Of a chat's choice or chunk."""
    if found is None:
        return None
    return {"content": token_logprobs(found), "refusal": None}


def token_logprobs(found: Sequence[Logprobs]) -> list[dict[str, Any]]:
    """One object for each token. A token that is half a character has its bytes, and � as text."""
    return [{**_priced(one.drawn), "top_logprobs": [*map(_priced, one.top)]} for one in found]


def text_logprobs(found: Sequence[Logprobs] | None, offset: int = 0) -> dict[str, Any] | None:
    """Of a text completion: lists side by side. `offset`: characters before the first token."""
    if found is None:
        return None
    tokens = [_text(one.drawn) for one in found]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [one.drawn.logprob for one in found],
        "top_logprobs": [{_text(other): other.logprob for other in one.top} for one in found],
        "text_offset": offsets,
    }


def _priced(one: TokenLogprob) -> dict[str, Any]:
    return {"token": _text(one), "logprob": one.logprob, "bytes": list(one.piece)}


def _text(one: TokenLogprob) -> str:
    return one.piece.decode("utf-8", "replace")
