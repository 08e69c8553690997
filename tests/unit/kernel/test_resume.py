"""Streams that outlive their readers: what is kept, who may go on, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from llmos.abi import syscall as sc
from llmos.abi.events import Aborted, Finished, FinishReason, Tokens
from llmos.abi.inference import Usage
from llmos.abi.principal import Principal, ServiceClass
from llmos.errors import InvalidRequest, NotFound, OffsetLost, QuotaExceeded
from llmos.ipc import memory
from llmos.kernel.config import KernelConfig
from llmos.kernel.front import Call, FrontEnd
from llmos.kernel.resume import Resumable
from llmos.kernel.stream import Bounds, Stream

ME, OTHER = Principal("prn_1", "ten_1", "me"), Principal("prn_2", "ten_1", "colleague")
END = Finished("r", FinishReason.STOP, Usage())
ACCEPTED = sc.Accepted("r", "m:1", 1, ServiceClass.DEFAULT, None, 0)


class World:
    """One kept stream, its reader, and what was cancelled."""

    def __init__(self, *, resume_s: float = 30.0, **settings: Any) -> None:
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        config = KernelConfig(**settings)
        self.resumable = Resumable(config, lambda _, reason: self.cancelled.put_nowait(reason))
        self.stalls: list[bool] = []
        self.reader, ours = memory.pair()
        call = Call(7, ME, FrontEnd(ours))
        kept = self.resumable.keep(resume_s, ME.tenant_id)
        self.stream = Stream(call, "r", Bounds(3, 1), lambda _, s: self.stalls.append(s), kept)
        self.stream.accepted = ACCEPTED
        call.front.streams[7] = self.stream
        self.front = call.front
        self.resumable.add(self.stream, ME, resume_s)

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.stream.deliver(token(number))

    def come_back(self, after: int, who: Principal = ME) -> memory.MemoryChannel:
        reader, ours = memory.pair()
        self.resumable.attach(Call(9, who, FrontEnd(ours)), "r", after)
        return reader


def token(number: int) -> Tokens:
    return Tokens("r", [number], str(number))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_a_reader_who_comes_back_gets_exactly_what_it_missed() -> None:
    async def main() -> None:
        world = World()
        world.say(1, 2)
        assert world.resumable.left(world.stream)
        assert world.front.streams == {}
        world.say(3, 4)
        reader = world.come_back(after=1)
        world.say(5)
        world.stream.close(END)
        messages = await reader.receive()
        assert messages[0] == sc.Reply(9, msgspec.structs.replace(ACCEPTED, after=1))
        events = [event for message in messages[1:] for event in message.events]
        assert events == [token(2), token(3), token(4), token(5), END]
        assert world.cancelled.empty()

    run(main)


def test_the_whole_can_be_read_again_after_the_end() -> None:
    async def main() -> None:
        world = World()
        world.say(1)
        world.stream.close(END)
        world.resumable.ended(world.stream)
        _, emitted = await world.come_back(after=0).receive()
        assert emitted.events == [token(1), END]
        reply, emitted = await world.come_back(after=2).receive()
        assert (reply.result.after, emitted.events) == (1, [END])

    run(main)


def test_a_lost_or_impossible_offset_is_an_explicit_error() -> None:
    async def main() -> None:
        world = World(kept_events=2)
        world.say(1, 2, 3)
        for offset in (0, 4, -1):
            with pytest.raises(OffsetLost):
                world.come_back(after=offset)
        assert world.stream.call is not None  # whoever asked in vain has taken nothing away
        reader = world.come_back(after=1)
        _, emitted = await reader.receive()
        assert emitted.events == [token(2), token(3)]

    run(main)


def test_nobody_else_may_read_it_and_an_unknown_one_is_not_found() -> None:
    async def main() -> None:
        world = World()
        with pytest.raises(NotFound):
            world.come_back(after=0, who=OTHER)
        with pytest.raises(NotFound):
            world.resumable.attach(Call(9, ME, world.front), "req_unknown", 0)

    run(main)


def test_a_second_reader_replaces_the_first_who_is_told() -> None:
    async def main() -> None:
        world = World()
        world.say(1)
        second = world.come_back(after=0)
        world.say(2)
        first_heard = await world.reader.receive()
        assert isinstance(first_heard[-1].events[0], Aborted)
        assert [m.events[0] for m in (await second.receive())[1:]] == [token(1), token(2)]

    run(main)


def test_a_stalled_reader_who_leaves_lets_the_request_go_on() -> None:
    async def main() -> None:
        world = World()
        world.say(1, 2, 3, 4)
        assert world.stalls == [True]
        world.resumable.left(world.stream)
        assert world.stalls == [True, False]
        world.say(*range(5, 50))
        assert world.stalls == [True, False]

    run(main)


def test_nobody_comes_back_and_the_request_is_cancelled_and_forgotten() -> None:
    async def main() -> None:
        world = World(resume_s=0.01)
        world.resumable.left(world.stream)
        async with asyncio.timeout(5):
            assert "nobody came back" in await world.cancelled.get()
        with pytest.raises(NotFound):
            world.come_back(after=0)

    run(main)


def test_an_ended_stream_is_forgotten_without_a_cancel() -> None:
    async def main() -> None:
        world = World(resume_s=0.01)
        world.stream.close(END)
        world.resumable.ended(world.stream)
        later = asyncio.Event()  # timers run in the order in which they are due
        asyncio.get_running_loop().call_later(0.02, later.set)
        await later.wait()
        assert not world.resumable.left(world.stream)
        assert world.cancelled.empty()

    run(main)


def test_how_long_and_how_many_are_bounded() -> None:
    async def main() -> None:
        world = World(max_kept_streams=1, max_resume_s=60.0)
        assert world.resumable.keep(None, "ten_1") is None
        assert world.resumable.keep(0.0, "ten_1") is None
        with pytest.raises(InvalidRequest):
            world.resumable.keep(61.0, "ten_1")
        with pytest.raises(QuotaExceeded):
            world.resumable.keep(1.0, "ten_2")

    run(main)


def test_one_tenant_may_have_half() -> None:
    async def main() -> None:
        world = World(max_kept_streams=2)
        with pytest.raises(QuotaExceeded):
            world.resumable.keep(1.0, "ten_1")
        assert world.resumable.keep(1.0, "ten_2") is not None

    run(main)
