"""What bounds the native driver's work. Constants, not settings: results depend on some of them."""

from __future__ import annotations

import msgspec

from llmos.weights.footprint import CHUNK_TOKENS, ROWS


class NativeLimits(msgspec.Struct, frozen=True):
    """`prefill_chunk` and `width_grid` are part of what makes results exact.

    A prompt is read in chunks that start at multiples of `prefill_chunk` tokens. A deterministic
    step has a multiple of `width_grid` rows: vector instructions then never end in the middle of
    the batch. In a packed step adjacent rows attend together when their numbers of keys round up
    to the same `length_grid` times a power of two. `prefill_s_per_step` bounds how long waiting
    prompts may hold up running requests.
    """

    prefill_chunk: int = CHUNK_TOKENS
    length_grid: int = 32
    width_grid: int = ROWS
    prefill_s_per_step: float = 0.05
    urgent_prefill_s_per_step: float = 0.25
    arrival_order_every: int = 8


LIMITS = NativeLimits()
