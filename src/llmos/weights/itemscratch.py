"""Work space of a model that answers item by item, beside its weights: an upper bound.

Constants here are those of `drivers.encoder.limits`, of which a test sees to it.
"""

from __future__ import annotations

BATCH_TOKENS = 4096
HEAD_BYTES = 128 << 20
VOICE_BYTES = 192 << 20
"""What speech passes through on its way from letters to samples, at its widest; measured."""

DECODED_TOKENS = 16_384
"""Of texts that are being made and what they are made of, together: keys and values are kept."""

_LAYER_FLOATS = 24
"""For each token and hidden unit: queries, keys, values, four times as wide a middle, and copies
of them on their way."""

_BASE_BYTES = 64 << 20
"""Attention's own, and freed blocks of the C library."""


def item_scratch_bytes(hidden_size: int, vocab_size: int, item_bytes: int) -> int:
    """Of the largest batch. Scores of a vocabulary are made at most `HEAD_BYTES` at a time, and
    are there three times: as they come, as float32, as probabilities."""
    layer = BATCH_TOKENS * hidden_size * _LAYER_FLOATS * max(4, item_bytes)
    head = 3 * max(HEAD_BYTES, 512 * 4 * vocab_size) if vocab_size else 0
    return layer + head + _BASE_BYTES
