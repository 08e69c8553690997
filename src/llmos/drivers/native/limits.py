"""What bounds the native driver's work. Constants, not settings: results depend on some of them."""

from __future__ import annotations

import msgspec

from llmos.weights.footprint import CHUNK_TOKENS, ROWS


class NativeLimits(msgspec.Struct, frozen=True):
    """`prefill_chunk` and `width_grid` are part of what makes results of torch exact.

    There a prompt is read in chunks that start at multiples of `prefill_chunk` tokens. A
    deterministic step has a multiple of `width_grid` rows: vector instructions then never end in
    the middle of the batch. In a packed step adjacent rows attend together when their numbers of
    keys round up to the same `length_grid` times a power of two.

    `prefill_s_per_step` bounds how long waiting prompts may hold up running requests;
    `arrival_order_every` steps, prompts are read by arrival, whatever their class.

    Of the fused engine a step has at most `step_tokens`; where requests are running, so many
    tokens of prompts as their bound in seconds holds at the speed of the last steps, but at least
    `least_prefill`. Up to `draft_rows` rows in all, tokens are guessed ahead, at most
    `draft_tokens` for a request: what came after its last `draft_match` tokens before, or what a
    draft model draws, which reads at most `draft_read_tokens` of what it has not seen in a step.
    """

    prefill_chunk: int = CHUNK_TOKENS
    length_grid: int = 32
    width_grid: int = ROWS
    prefill_s_per_step: float = 0.05
    urgent_prefill_s_per_step: float = 0.25
    arrival_order_every: int = 8
    step_tokens: int = 256
    least_prefill: int = 16
    draft_rows: int = 8
    draft_tokens: int = 4
    draft_match: int = 3
    draft_read_tokens: int = 64


LIMITS = NativeLimits()
