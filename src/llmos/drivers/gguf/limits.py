"""What bounds the GGUF driver's work. Constants, not settings: results depend on some of them."""

from __future__ import annotations

import msgspec


class GGUFLimits(msgspec.Struct, frozen=True):
    """A step reads at most `prefill_tokens` of prompts beside one token of each running request;
    fewer, at least `min_prefill_tokens`, while others run and reading takes longer than
    `prefill_s`. A deterministic request's prompt is read in chunks that start at multiples of
    `exact_chunk`, each alone.
    """

    prefill_tokens: int = 128
    min_prefill_tokens: int = 16
    prefill_s: float = 0.1
    exact_chunk: int = 64


LIMITS = GGUFLimits()
