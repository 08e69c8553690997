"""Length-prefixed frames: four bytes, little-endian, then that many bytes of payload."""

from __future__ import annotations

import struct

from llmos.errors import ProtocolViolation

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A longer frame is a broken or hostile peer: bulk bytes travel out of band."""

_HEADER = struct.Struct("<I")


def pack(payload: bytes) -> bytes:
    """One frame. Raises ProtocolViolation when the payload is over the cap."""
    if len(payload) > MAX_FRAME_BYTES:
        raise ProtocolViolation(f"a message of {len(payload)} bytes is over {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(payload)) + payload


class FrameReader:
    """Cuts a byte stream into payloads. Knows nothing of where the bytes come from."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads completed by `data`. Raises ProtocolViolation on an over-long frame."""
        buffer = self._buffer
        buffer += data
        payloads: list[bytes] = []
        start, end = 0, len(buffer)
        while end - start >= _HEADER.size:
            (size,) = _HEADER.unpack_from(buffer, start)
            if size > self._max_frame_bytes:
                raise ProtocolViolation(f"a frame of {size} bytes is over {self._max_frame_bytes}")
            stop = start + _HEADER.size + size
            if stop > end:
                break
            payloads.append(bytes(memoryview(buffer)[start + _HEADER.size : stop]))
            start = stop
        if start:
            del buffer[:start]
        return payloads
