"""Log-probabilities as the two routes of OpenAI's tell them, read back."""

from __future__ import annotations

from typing import Any

from llmos.abi.events import UNKNOWN_ID, Logprobs, TokenLogprob

MAX_TOP = 64
"""Likeliest tokens kept of each; a remote may not fill our memory with more."""


def read_logprobs(found: Any) -> list[Logprobs]:
    """Of a choice: a chat's (`content`), or a text's (`tokens` and lists beside it). Raises
    TypeError, KeyError, ValueError for what is neither."""
    if found is None:
        return []
    if "tokens" in found:
        return _of_text(found)
    return [
        Logprobs(
            _priced(one), [_priced(other) for other in (one.get("top_logprobs") or ())][:MAX_TOP]
        )
        for part in ("content", "refusal")
        for one in found.get(part) or ()
    ]


def _priced(one: dict[str, Any]) -> TokenLogprob:
    """`bytes` are null of a token that has no text of its own, and some servers never send them."""
    piece = one.get("bytes")
    text = one["token"].encode("utf-8", "replace")
    return TokenLogprob(UNKNOWN_ID, text if piece is None else bytes(piece), float(one["logprob"]))


def _of_text(found: dict[str, Any]) -> list[Logprobs]:
    tokens, own = found["tokens"] or [], found["token_logprobs"] or []
    likeliest = found.get("top_logprobs") or [None] * len(tokens)
    made = []
    for token, logprob, top in zip(tokens, own, likeliest, strict=True):
        others = sorted((top or {}).items(), key=lambda other: -other[1])[:MAX_TOP]
        made.append(Logprobs(_named(token, logprob), [_named(*other) for other in others]))
    return made


def _named(token: str, logprob: float) -> TokenLogprob:
    return TokenLogprob(UNKNOWN_ID, token.encode("utf-8", "replace"), float(logprob))
