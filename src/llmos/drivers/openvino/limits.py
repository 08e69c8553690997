"""What bounds the OpenVINO driver's work. Constants, not settings."""

from __future__ import annotations

BATCHED_TOKENS = 256
"""Read or drawn in one step, of all rows together."""

BLOCK_TOKENS = 32
"""Of keys and values that the engine gives out at once."""

ROOM_BYTES = 64 << 20
"""More than was there after the largest pass: what freed memory leaves, and tokens of answers."""

MAX_PENALTY = 2.0
"""Of frequency and presence, either way, is as much as the engine takes."""
