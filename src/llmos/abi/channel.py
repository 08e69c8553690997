"""The Channel seam: an ordered, framed, bidirectional pipe of messages between two processes."""

from __future__ import annotations

from typing import Any, Protocol


class ChannelClosed(Exception):
    """The peer is gone. Not an LLMOSError: whoever owns the channel turns it into one."""


class Channel(Protocol):
    """Messages arrive whole and in order, or not at all."""

    def send(self, message: Any) -> None:
        """Queue a message. Never blocks; raises ChannelClosed once the peer is known to be gone."""
        ...

    async def receive(self) -> list[Any]:
        """All messages that have arrived, at least one. Raises ChannelClosed at the end."""
        ...

    async def drain(self) -> None:
        """Wait until the bytes queued are below the write bound."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...
