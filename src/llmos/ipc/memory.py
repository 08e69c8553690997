"""A Channel between two parties on one event loop: no copy, no encoding."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from llmos.abi.channel import ChannelClosed

MAX_QUEUED = 65_536
"""`drain` waits while the peer has this many messages unread."""


class MemoryChannel:
    """One end; make both with `pair`. Messages are immutable structs, so sharing them is safe."""

    def __init__(self) -> None:
        self._inbox: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._closed = False
        self._peer: MemoryChannel = self

    def send(self, message: Any) -> None:
        peer = self._peer
        if self._closed or peer._closed:
            raise ChannelClosed
        peer._inbox.append(message)
        peer._arrived.set()

    async def receive(self) -> list[Any]:
        while not self._inbox:
            if self._closed or self._peer._closed:
                raise ChannelClosed
            self._arrived.clear()
            await self._arrived.wait()
        batch = list(self._inbox)
        self._inbox.clear()
        self._taken.set()
        return batch

    async def drain(self) -> None:
        peer = self._peer
        while len(peer._inbox) >= MAX_QUEUED and not peer._closed:
            peer._taken.clear()
            await peer._taken.wait()

    def close(self) -> None:
        self._closed = True
        for end in (self, self._peer):
            end._arrived.set()
            end._taken.set()


def pair() -> tuple[MemoryChannel, MemoryChannel]:
    """Two connected ends."""
    left, right = MemoryChannel(), MemoryChannel()
    left._peer, right._peer = right, left
    return left, right
