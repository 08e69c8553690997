"""THE gate: every request, job and admin action passes here, and nowhere else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from llmos.abi import syscall as sc
from llmos.abi.channel import Channel, ChannelClosed
from llmos.abi.principal import Action, Authorizer, Resource
from llmos.errors import Cancelled, LLMOSError, PermissionDenied, ProtocolViolation
from llmos.kernel.front import NOBODY, Call, FrontEnd
from llmos.kernel.stream import Stream

log = logging.getLogger(__name__)


Handler = Callable[[Any, Call, Any], Awaitable[sc.Result | None]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A system call: what right it needs, on what, and who does it. `action` None: open to all."""

    handler: Handler
    action: Action | None
    resource: Callable[[Any], Resource]


class Gate:
    """Authorizes, dispatches to one handler, answers exactly once.

    `leave(stream, reason)` is told when nobody reads an accepted request any more; `kernel` is
    handed to the handlers.
    """

    def __init__(
        self,
        kernel: Any,
        table: dict[type, Entry],
        authorizer: Authorizer,
        leave: Callable[[Stream, str], None],
    ) -> None:
        self._kernel = kernel
        self._table = table
        self._authorizer = authorizer
        self._leave = leave

    async def serve(self, channel: Channel, parent_id: str | None = None) -> None:
        """One front end, until its channel closes; what it had open is then cancelled."""
        front = FrontEnd(channel, parent_id)
        try:
            while True:
                for message in await channel.receive():
                    self._take(front, message)
        except ChannelClosed:
            for task in list(front.tasks.values()):
                task.cancel()
            for stream in list(front.streams.values()):
                self._leave(stream, "the front end is gone")

    def _take(self, front: FrontEnd, message: sc.ToGate) -> None:
        if isinstance(message, sc.Ack):
            if stream := front.streams.get(message.call):
                stream.ack(message.num_events)
        elif isinstance(message, sc.Syscall):
            self._begin(front, message)
        else:
            self._cancel(front, message)

    def _begin(self, front: FrontEnd, message: sc.Syscall) -> None:
        number = message.call
        if number in front.tasks or number in front.streams:
            error = ProtocolViolation(f"call {number} is open already")
            front.send(sc.Refused(number, error.to_info()))
            return
        task = asyncio.get_running_loop().create_task(self._run(front, message))
        front.tasks[number] = task
        task.add_done_callback(lambda _: front.tasks.pop(number, None))

    def _cancel(self, front: FrontEnd, message: sc.Cancel) -> None:
        if stream := front.streams.get(message.call):
            self._leave(stream, message.reason)
        elif task := front.tasks.get(message.call):
            task.cancel()

    async def _run(self, front: FrontEnd, message: sc.Syscall) -> None:
        try:
            result = await self._dispatch(front, message)
        except LLMOSError as error:
            front.send(sc.Refused(message.call, error.to_info()))
        except asyncio.CancelledError:
            front.send(sc.Refused(message.call, Cancelled("cancelled").to_info()))
        except Exception as error:
            log.exception("a system call failed", extra={"call": type(message.body).__name__})
            internal = LLMOSError(f"internal error: {type(error).__name__}")
            front.send(sc.Refused(message.call, internal.to_info()))
        else:
            if result is not None:
                front.send(sc.Reply(message.call, result))

    async def _dispatch(self, front: FrontEnd, message: sc.Syscall) -> sc.Result | None:
        entry = self._table[type(message.body)]
        principal = message.principal
        if entry.action is not None:
            if principal is None:
                raise PermissionDenied("this call needs a principal")
            self._authorizer.authorize(principal, entry.action, entry.resource(message.body))
        call = Call(message.call, principal or NOBODY, front, message.trace_parent)
        return await entry.handler(self._kernel, call, message.body)
