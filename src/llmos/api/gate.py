"""The front end's side of the gate: system calls over one Channel, answers demultiplexed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

from llmos.abi.channel import Channel, ChannelClosed
from llmos.abi.principal import Principal
from llmos.abi.syscall import (
    AttachStream,
    Body,
    Cancel,
    Emit,
    FromGate,
    Infer,
    LoadModel,
    PullModel,
    QuantizeModel,
    Refused,
    Reply,
    Result,
    Syscall,
    WaitProcess,
)
from llmos.abi.syscall_jobs import BackUp, FollowJob
from llmos.api.streams import FollowStream, GateStream, InferStream, PullStream
from llmos.errors import LLMOSError, ShuttingDown, WorkerLost, from_info


class GateClient:
    """Sends system calls and hands each answer to whoever waits for it.

    One per Channel, one event loop. When the channel closes, every waiter gets an error and every
    later call is refused with it: nobody hangs.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._unary: dict[int, asyncio.Future[Result]] = {}
        self._streams: dict[int, GateStream[object]] = {}
        self._pump: asyncio.Task[None] | None = None
        self._closed: LLMOSError | None = None

    async def call(
        self, principal: Principal | None, body: Body, trace_parent: str | None = None
    ) -> Result:
        """One call, one answer. Raises the error the gate refused with."""
        number = next(self._numbers)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._unary[number] = future
        try:
            self._send(Syscall(number, principal, body, trace_parent))
            return await future
        except asyncio.CancelledError:
            if isinstance(body, LoadModel | WaitProcess | BackUp):  # others finish what they do
                with contextlib.suppress(ChannelClosed):
                    self._channel.send(Cancel(number, "the caller left"))
            raise
        finally:
            self._unary.pop(number, None)

    def start_infer(
        self, principal: Principal, body: Infer | AttachStream, trace_parent: str | None = None
    ) -> InferStream:
        """Ask for a request without waiting for its acceptance: see `InferStream.accept`."""
        stream = InferStream(self._channel, next(self._numbers), self._forget)
        self._streams[stream.call] = stream  # type: ignore[assignment]
        self._open(stream.call, principal, body, trace_parent)
        return stream

    async def infer(
        self, principal: Principal, body: Infer, trace_parent: str | None = None
    ) -> InferStream:
        """An accepted request's stream. Raises the error it was refused with."""
        stream = self.start_infer(principal, body, trace_parent)
        try:
            await stream.accept()
        except asyncio.CancelledError:
            stream.cancel("cancelled", ShuttingDown("cancelled while waiting for acceptance"))
            raise
        return stream

    def pull(
        self,
        principal: Principal,
        body: PullModel | QuantizeModel,
        trace_parent: str | None = None,
    ) -> PullStream:
        """Start a pull: iterate for its progress, then read `result`."""
        stream = PullStream(self._channel, next(self._numbers), self._forget)
        self._streams[stream.call] = stream  # type: ignore[assignment]
        self._open(stream.call, principal, body, trace_parent)
        return stream

    def follow(
        self, principal: Principal, body: FollowJob, trace_parent: str | None = None
    ) -> FollowStream:
        """Iterate for a job's events until it has ended, then read `result`."""
        stream = FollowStream(self._channel, next(self._numbers), self._forget)
        self._streams[stream.call] = stream  # type: ignore[assignment]
        self._open(stream.call, principal, body, trace_parent)
        return stream

    async def close(self) -> None:
        """End every call with ShuttingDown and close the channel. Idempotent."""
        self._fail_all(ShuttingDown("the server is shutting down"))
        self._channel.close()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    def _open(
        self, number: int, principal: Principal, body: Body, trace_parent: str | None
    ) -> None:
        try:
            self._send(Syscall(number, principal, body, trace_parent))
        except LLMOSError:
            self._streams.pop(number, None)
            raise

    def _send(self, message: Syscall) -> None:
        if self._closed is not None:
            raise type(self._closed)(self._closed.message)
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run(), name="api-gate-pump")
        try:
            self._channel.send(message)
        except ChannelClosed:
            raise WorkerLost("the kernel is gone") from None

    async def _run(self) -> None:
        try:
            while True:
                for message in await self._channel.receive():
                    self._dispatch(message)
        except ChannelClosed:
            return
        finally:  # whatever ended the pump, nobody may wait for what cannot come
            self._fail_all(WorkerLost("the kernel is gone"))

    def _dispatch(self, message: FromGate) -> None:
        """Hand one message to its waiter; one nobody waits for any more is dropped."""
        if type(message) is Emit:
            stream = self._streams.get(message.call)
            if stream is not None:
                stream.feed(message.events)
        elif isinstance(message, Reply):
            self._reply(message)
        elif isinstance(message, Refused):
            self._refuse(message)

    def _reply(self, message: Reply) -> None:
        future = self._unary.get(message.call)
        if future is not None:
            if not future.done():
                future.set_result(message.result)
        elif (stream := self._streams.get(message.call)) is not None:
            stream.answer(message.result)

    def _refuse(self, message: Refused) -> None:
        future = self._unary.get(message.call)
        if future is not None:
            if not future.done():
                future.set_exception(from_info(message.error))
        elif (stream := self._streams.get(message.call)) is not None:
            stream.fail(from_info(message.error))

    def _forget(self, number: int) -> None:
        self._streams.pop(number, None)

    def _fail_all(self, error: LLMOSError) -> None:
        if self._closed is None:
            self._closed = error
        for future in list(self._unary.values()):
            if not future.done():
                future.set_exception(type(error)(error.message))
        for stream in list(self._streams.values()):
            stream.fail(type(error)(error.message))
