"""The worker's end of a channel: one thread, no event loop, waits only when told how long."""

from __future__ import annotations

import math
import select
import socket
from typing import Any

from llmos.abi.channel import ChannelClosed
from llmos.ipc.codec import Codec
from llmos.ipc.framing import FrameReader, pack

_READ_BYTES = 1 << 20


class BlockingChannel:
    """Synchronous twin in meaning, not in code, of `StreamChannel`."""

    def __init__(self, sock: socket.socket, codec: Codec) -> None:
        self._sock = sock
        self._codec = codec
        self._frames = FrameReader()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def watch(self, fd: int) -> None:
        """From now on `receive` also returns when this is readable. Whoever owns it reads it."""
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Before it is closed."""
        self._poll.unregister(fd)

    def send(self, message: Any) -> None:
        """Blocks until the kernel has room: it always reads. Raises ChannelClosed."""
        try:
            self._sock.sendall(pack(self._codec.encode(message)))
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, wait_s: float | None) -> list[Any]:
        """What has arrived within `wait_s` (None: for ever), maybe nothing. Raises ChannelClosed.

        Raises ProtocolViolation when the kernel breaks the ABI.
        """
        wait_ms = None if wait_s is None else math.ceil(wait_s * 1000)
        ready = self._poll.poll(wait_ms)
        if not any(fd == self._sock.fileno() for fd, _ in ready):
            return []
        try:
            data = self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        return [self._codec.decode(payload) for payload in self._frames.feed(data)]

    def close(self) -> None:
        """Of this process's hold on the socket; the peer sees it once nobody else has one."""
        self._sock.close()
