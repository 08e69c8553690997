"""Front ends: who calls, and on which channel the answer goes back."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmos.abi.channel import Channel, ChannelClosed
from llmos.abi.principal import Principal
from llmos.abi.syscall import FromGate

if TYPE_CHECKING:
    from llmos.kernel.stream import Stream

NOBODY = Principal("prn_nobody", "ten_nobody", "nobody")
"""Stands in where a call needs no principal."""


@dataclass(eq=False, slots=True)
class FrontEnd:
    """One channel's calls in flight: a task while its handler works, a stream once accepted.

    `parent_id`: the job whose requests come in here.
    """

    channel: Channel
    parent_id: str | None = None
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)

    def send(self, message: FromGate) -> None:
        """A front end that is gone hears nothing, and that is no error."""
        with contextlib.suppress(ChannelClosed):
            self.channel.send(message)


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its handler sees it."""

    number: int
    principal: Principal
    front: FrontEnd
    trace_parent: str | None = None
