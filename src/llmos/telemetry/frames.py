"""Messages over a socket between the server and its scribe: their length in four bytes, then
msgpack. Under a socket's time limit a send takes no longer, and a receive waits no longer for a
part."""

from __future__ import annotations

import socket
from typing import TypeVar

import msgspec

T = TypeVar("T")


def send(line: socket.socket, message: object) -> None:
    """Raises OSError."""
    data = msgspec.msgpack.encode(message)
    line.sendall(len(data).to_bytes(4, "big") + data)


def receive(line: socket.socket, kind: type[T]) -> T:
    """Raises OSError, and EOFError when the other end is closed."""
    size_bytes = int.from_bytes(_read(line, 4), "big")
    return msgspec.msgpack.decode(_read(line, size_bytes), type=kind)


def _read(line: socket.socket, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        part = line.recv(size_bytes - len(data))
        if not part:
            raise EOFError("the other end is closed")
        data += part
    return bytes(data)
