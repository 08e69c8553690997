"""What bounds the vLLM driver's work. Constants, not settings."""

from __future__ import annotations

BATCHED_TOKENS = 2048
"""Read or drawn in one step, of all rows together."""

BLOCK_TOKENS = 32
"""Of keys and values that the engine gives out at once."""

ROOM_BYTES = 512 << 20
"""More than was there after its own first pass, of all of its processes together."""

MAX_SOCKET_PATH = 60
"""Of a folder for the engine's own sockets: their names go on, and the system bounds the whole."""

STOP_TIMEOUT_S = 30.0
"""Until the engine's processes have ended by themselves."""
