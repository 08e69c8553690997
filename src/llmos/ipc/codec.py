"""Messages to bytes and back, typed at both ends."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.abi.worker import FromWorker, ToWorker
from llmos.errors import ProtocolViolation


class Codec:
    """msgpack for one direction's union of messages: `decode` accepts nothing else."""

    def __init__(self, receives: Any) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(receives)

    def encode(self, message: Any) -> bytes:
        """Raises ProtocolViolation for what msgpack has no form for (2**64, half a surrogate)."""
        try:
            return self._encoder.encode(message)
        except (OverflowError, UnicodeEncodeError, TypeError) as error:
            raise ProtocolViolation(f"a message cannot be encoded: {error}") from error

    def decode(self, payload: bytes) -> Any:
        """Raises ProtocolViolation when the payload is not one of the messages expected."""
        try:
            return self._decoder.decode(payload)
        except msgspec.DecodeError as error:
            raise ProtocolViolation(f"not a message of this ABI: {error}") from error


def kernel_codec() -> Codec:
    """The kernel's end: it receives what workers send."""
    return Codec(FromWorker)


def worker_codec() -> Codec:
    """The worker's end."""
    return Codec(ToWorker)
