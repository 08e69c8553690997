"""A Channel over a connected stream socket, for the asyncio side (the kernel)."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Any, cast

from llmos.abi.channel import ChannelClosed
from llmos.errors import ProtocolViolation
from llmos.ipc.codec import Codec
from llmos.ipc.framing import FrameReader, pack


class StreamChannel(asyncio.Protocol):
    """Frames of one codec. Everything sent in one turn of the loop leaves in one write."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._frames = FrameReader()
        self._inbox: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._outbox: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._violation: ProtocolViolation | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by duck

    def data_received(self, data: bytes) -> None:
        try:
            self._inbox.extend(map(self._codec.decode, self._frames.feed(data)))
        except ProtocolViolation as violation:
            self._violation = violation
            self.close()
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._arrived.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Channel

    def send(self, message: Any) -> None:
        if self._transport is None:
            raise ChannelClosed
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(pack(self._codec.encode(message)))

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._outbox))
        self._outbox.clear()

    async def receive(self) -> list[Any]:
        """As the Protocol says; raises ProtocolViolation once if the peer broke the ABI."""
        while not self._inbox:
            if self._violation is not None:
                violation, self._violation = self._violation, None
                raise violation
            if self._transport is None:
                raise ChannelClosed
            self._arrived.clear()
            await self._arrived.wait()
        batch = list(self._inbox)
        self._inbox.clear()
        return batch

    async def drain(self) -> None:
        await self._writable.wait()
        if self._transport is None:
            raise ChannelClosed

    def close(self) -> None:
        if self._transport is not None:
            if self._outbox:
                self._flush()
            self._transport.close()
            self._transport = None
            self._arrived.set()


async def connect(sock: socket.socket, codec: Codec) -> StreamChannel:
    """A channel over an already connected socket, which it owns from now on."""
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_connection(lambda: StreamChannel(codec), sock=sock)
    return channel
