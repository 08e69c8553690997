"""What waits for the gate's answers: one object per call, fed by the client's pump."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from llmos.abi.channel import Channel, ChannelClosed
from llmos.abi.events import Event, Outputs, Tokens
from llmos.abi.jobs import JobEvent
from llmos.abi.registry import PullProgress
from llmos.abi.syscall import Accepted, Ack, Cancel, Result
from llmos.errors import ProtocolViolation

E = TypeVar("E")


class GateStream(Generic[E]):
    """A call that is answered more than once: batches of events, all that arrived at a time.

    Iterating acknowledges a batch when the next one is asked for: by then it was delivered. After
    `cancel` or a lost gate, waiting raises the error given there. One consumer only.
    """

    def __init__(self, channel: Channel, call: int, forget: Callable[[int], None]) -> None:
        self.call = call
        self._channel = channel
        self._forget = forget
        self._events: list[E] = []
        self._num_taken = 0
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._poked = False

    def __aiter__(self) -> GateStream[E]:
        return self

    async def __anext__(self) -> list[E]:
        """The next batch, never empty unless `poke` asked for one."""
        if self._num_taken and not self._ended:
            self._tell(Ack(self.call, self._num_taken))
            self._num_taken = 0
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            if self._poked:
                self._poked = False
                return []
            await self._wait()
        events, self._events = self._events, []
        self._num_taken = len(events)
        return events

    @property
    def is_waiting(self) -> bool:
        """True while the consumer has nothing to do."""
        return self._waiter is not None

    def poke(self) -> None:
        """Give a waiting consumer an empty batch, so that it can show a sign of life."""
        if self._waiter is not None:
            self._poked = True
            self._wake()

    def cancel(self, reason: str, error: Exception) -> None:
        """Tell the gate that nobody wants this any more; the consumer gets `error`. Idempotent."""
        if self._ended:
            return
        self._tell(Cancel(self.call, reason))
        self._events.clear()
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """End it with an error, which the consumer gets after what has arrived already."""
        self._error = error
        self._end()

    def answer(self, result: Result) -> None:
        """A `Reply`."""
        raise NotImplementedError

    def feed(self, events: list[Any]) -> None:
        """An `Emit`."""
        self._events.extend(events)
        self._wake()

    def _end(self) -> None:
        self._ended = True
        self._forget(self.call)
        self._wake()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _tell(self, message: Ack | Cancel) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            """The pump sees the same and fails this stream."""


class InferStream(GateStream[Event]):
    """A request's stream. `on_terminal` is called as soon as the last event has arrived, even
    while the consumer is blocked by a slow socket.
    """

    on_terminal: Callable[[Event], None] | None = None
    _accepted: Accepted | None = None

    @property
    def accepted(self) -> Accepted:
        """What the core said when it took the request; only after `accept`."""
        if self._accepted is None:
            raise ProtocolViolation("the request was not accepted yet")
        return self._accepted

    async def accept(self) -> Accepted:
        """Wait until the core has taken the request. Raises what it refused with."""
        while self._accepted is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._accepted

    def answer(self, result: Result) -> None:
        if isinstance(result, Accepted) and self._accepted is None:
            self._accepted = result
            self._wake()
        else:
            self.fail(ProtocolViolation(f"not an answer to Infer: {type(result).__name__}"))

    def feed(self, events: list[Any]) -> None:
        self._events.extend(events)
        last = events[-1] if events else None
        if last is not None and type(last) is not Tokens and type(last) is not Outputs:
            self._end()
            if self.on_terminal is not None:
                self.on_terminal(last)
        else:
            self._wake()


class ReplyStream(GateStream[E]):
    """Events that end with a reply: `result` holds it once the iteration has ended."""

    result: Result

    def answer(self, result: Result) -> None:
        self.result = result
        self._end()


PullStream = ReplyStream[PullProgress]
"""Progress of a pull, then the model."""

FollowStream = ReplyStream[JobEvent]
"""What is logged of a job, then the job."""
