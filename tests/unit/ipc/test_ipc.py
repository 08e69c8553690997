"""Framing, codec and the three channels."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.abi import worker as msg
from llmos.abi.channel import ChannelClosed
from llmos.abi.events import Finished, FinishReason, Tokens
from llmos.abi.inference import Usage
from llmos.errors import ProtocolViolation
from llmos.ipc import memory
from llmos.ipc.blocking import BlockingChannel
from llmos.ipc.codec import kernel_codec, worker_codec
from llmos.ipc.framing import FrameReader, pack
from llmos.ipc.stream import connect

STEP = msg.Step(
    [
        Tokens("req_1", [1, 2], "你好🎉"),
        Finished("req_1", FinishReason.STOP, Usage(1, 2), "\n", True),
    ],
    0.5,
)


@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(1, 50))
def test_frames_survive_any_cutting(payloads: list[bytes], size: int) -> None:
    stream = b"".join(map(pack, payloads))
    reader = FrameReader()
    found = [p for i in range(0, len(stream), size) for p in reader.feed(stream[i : i + size])]
    assert found == payloads


def test_an_overlong_frame_is_a_violation_before_its_bytes_arrive() -> None:
    with pytest.raises(ProtocolViolation):
        FrameReader(max_frame_bytes=10).feed((11).to_bytes(4, "little"))


@given(st.binary(max_size=100))
def test_garbage_is_a_violation_and_nothing_else(payload: bytes) -> None:
    codec = worker_codec()
    try:
        codec.decode(payload)
    except ProtocolViolation:
        return
    pytest.fail("garbage was decoded")


def test_a_message_of_the_other_direction_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation):
        worker_codec().decode(kernel_codec().encode(STEP))


async def _socket_round_trip() -> None:
    ours, theirs = socket.socketpair()
    kernel = await connect(ours, kernel_codec())
    worker = BlockingChannel(theirs, worker_codec())
    kernel.send(msg.Probe(1))
    kernel.send(msg.Probe(2))
    got = await asyncio.to_thread(worker.receive, 5.0)
    while len(got) < 2:
        got += await asyncio.to_thread(worker.receive, 5.0)
    assert got == [msg.Probe(1), msg.Probe(2)]
    worker.send(STEP)
    assert await kernel.receive() == [STEP]
    await kernel.drain()
    theirs.close()
    with pytest.raises(ChannelClosed):
        await kernel.receive()
    with pytest.raises(ChannelClosed):
        kernel.send(msg.Probe(3))


def test_both_ends_of_a_socket_understand_each_other() -> None:
    asyncio.run(_socket_round_trip())


async def _hostile_worker() -> None:
    ours, theirs = socket.socketpair()
    kernel = await connect(ours, kernel_codec())
    theirs.sendall(pack(b"\xc1 not msgpack"))
    with pytest.raises(ProtocolViolation):
        await kernel.receive()
    with pytest.raises(ChannelClosed):
        await kernel.receive()
    theirs.close()


def test_a_worker_that_breaks_the_protocol_is_cut_off() -> None:
    asyncio.run(_hostile_worker())


def test_a_worker_waits_only_as_long_as_it_was_told() -> None:
    ours, theirs = socket.socketpair()
    channel = BlockingChannel(theirs, worker_codec())
    assert channel.receive(0.0) == []
    ours.close()
    with pytest.raises(ChannelClosed):
        channel.receive(None)
    theirs.close()


async def _in_memory() -> None:
    left, right = memory.pair()
    left.send("a")
    left.send("b")
    assert await right.receive() == ["a", "b"]
    waiting = asyncio.ensure_future(left.receive())
    await asyncio.sleep(0)
    right.send("c")
    assert await waiting == ["c"]
    right.send("last")
    right.close()
    assert await left.receive() == ["last"]  # what was sent before the end arrives
    with pytest.raises(ChannelClosed):
        await left.receive()
    with pytest.raises(ChannelClosed):
        left.send("x")


def test_the_channel_in_memory_behaves_as_one_over_a_socket() -> None:
    asyncio.run(_in_memory())


async def _bounded(limit: int) -> None:
    left, right = memory.pair()
    for i in range(limit):
        left.send(i)
    full = asyncio.ensure_future(left.drain())
    await asyncio.sleep(0)
    assert not full.done()
    await right.receive()
    await asyncio.wait_for(full, 1)


def test_draining_waits_for_the_reader() -> None:
    asyncio.run(_bounded(memory.MAX_QUEUED))


@pytest.mark.parametrize("value", [2**64, "\ud800", object()])
def test_what_msgpack_cannot_carry_is_a_typed_error(value: object) -> None:
    with pytest.raises(ProtocolViolation):
        worker_codec().encode([value])
