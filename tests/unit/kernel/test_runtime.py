"""Streams, the tokenizer's client, the gate: each alone, with doubles around it."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from llmos.abi import syscall as sc
from llmos.abi import worker as msg
from llmos.abi.events import Finished, FinishReason, Tokens
from llmos.abi.inference import Prepared, PrepareItem, TextPrompt, Usage
from llmos.abi.principal import Action, Principal, Resource
from llmos.errors import (
    InvalidRequest,
    PermissionDenied,
    ProtocolViolation,
    ShuttingDown,
    WorkerLost,
)
from llmos.ipc import memory
from llmos.kernel.front import Call, FrontEnd
from llmos.kernel.stream import Bounds, Stream
from llmos.kernel.syscall import Entry, Gate
from llmos.kernel.table import SYSCALLS
from llmos.kernel.tokenizer import WINDOW, Tokenizer

ME = Principal("prn_1", "ten_1", "me")
END = Finished("r", FinishReason.STOP, Usage())


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


# streams


def make_stream() -> tuple[Stream, memory.MemoryChannel, list[bool]]:
    front, ours = memory.pair()
    changes: list[bool] = []
    call = Call(7, ME, FrontEnd(ours))
    stream = Stream(call, "r", Bounds(high=3, low=1), lambda _, stalled: changes.append(stalled))
    return stream, front, changes


def test_a_stream_stalls_above_high_and_flows_again_below_low() -> None:
    async def main() -> None:
        stream, _, changes = make_stream()
        for _ in range(5):
            stream.deliver(Tokens("r", [1], "x"))
        assert changes == [True]
        stream.ack(3)
        assert changes == [True]
        stream.ack(1)
        assert changes == [True, False]
        stream.ack(100)  # over-counting only cheats the front end itself
        stream.deliver(Tokens("r", [1], "x"))
        assert changes == [True, False]

    run(main)


def test_nothing_follows_the_terminal_event_and_it_comes_once() -> None:
    async def main() -> None:
        stream, front, _ = make_stream()
        stream.close(END)
        stream.deliver(Tokens("r", [1], "late"))
        with pytest.raises(AssertionError):
            stream.close(END)
        assert await front.receive() == [sc.Emit(7, [END])]

    run(main)


def test_a_front_end_that_is_gone_is_no_error() -> None:
    async def main() -> None:
        stream, front, _ = make_stream()
        front.close()
        stream.deliver(Tokens("r", [1], "x"))
        stream.close(END)

    run(main)


# the tokenizer's client


def item(request_id: str) -> PrepareItem:
    return PrepareItem(request_id, "e", "", TextPrompt("x"), 10)


def success(request_id: str) -> msg.PrepareSuccess:
    return msg.PrepareSuccess(Prepared(request_id, b"", 0))


def test_prompts_of_one_turn_travel_together_and_answers_find_their_askers() -> None:
    async def main() -> None:
        tokenizer = Tokenizer(timeout_s=5)
        ours, worker = memory.pair()
        tokenizer.connected(ours)
        asked = [asyncio.ensure_future(tokenizer.prepare(item(name))) for name in "abc"]
        (message,) = await worker.receive()
        assert [i.request_id for i in message.items] == ["a", "b", "c"]
        failure = msg.PrepareFailure("b", InvalidRequest("no").to_info())
        tokenizer.answered(msg.PrepareResults([success("c"), failure, success("nobody")]))
        tokenizer.answered(msg.PrepareResults([success("a")]))
        assert (await asked[0]).request_id == "a"
        with pytest.raises(InvalidRequest):
            await asked[1]
        assert (await asked[2]).request_id == "c"

    run(main)


def test_a_dead_tokenizer_fails_the_prompt_it_died_over_and_no_other() -> None:
    async def main() -> None:
        tokenizer = Tokenizer(timeout_s=5)
        ours, worker = memory.pair()
        tokenizer.connected(ours)
        asked = [asyncio.ensure_future(tokenizer.prepare(item(name))) for name in "ab"]
        await worker.receive()
        tokenizer.lost(WorkerLost("killed").to_info())
        with pytest.raises(WorkerLost):
            await asked[0]
        assert not tokenizer.is_up
        successor, worker = memory.pair()
        tokenizer.connected(successor)
        (message,) = await worker.receive()
        assert [i.request_id for i in message.items] == ["b"]
        tokenizer.answered(msg.PrepareResults([success("b")]))
        assert (await asked[1]).request_id == "b"

    run(main)


def test_a_prompt_nobody_waits_for_never_reaches_the_worker() -> None:
    async def main() -> None:
        tokenizer = Tokenizer(timeout_s=5)
        ours, worker = memory.pair()
        tokenizer.connected(ours)
        asked = [asyncio.ensure_future(tokenizer.prepare(item(str(i)))) for i in range(WINDOW + 50)]
        (message,) = await worker.receive()
        assert len(message.items) == WINDOW
        for task in asked[:-1]:
            task.cancel()
        await asyncio.wait(asked[:-1])
        tokenizer.answered(msg.PrepareResults([success("0")]))
        (message,) = await worker.receive()
        assert [i.request_id for i in message.items] == [str(WINDOW + 49)]
        tokenizer.lost(WorkerLost("killed").to_info())  # over a prompt nobody waits for
        successor, worker = memory.pair()
        tokenizer.connected(successor)
        (message,) = await worker.receive()
        assert len(message.items) == 1
        tokenizer.close()
        with pytest.raises(ShuttingDown):
            await asked[-1]

    run(main)


class Narrow(memory.MemoryChannel):
    """Takes one short prompt a message."""

    def send(self, message: Any) -> None:
        if len(message.items) > 1 or message.items[0].prompt.text == "long":
            raise ProtocolViolation("too long")
        super().send(message)


def test_prompts_that_do_not_fit_one_message_travel_alone_and_one_that_never_fits_fails() -> None:
    async def main() -> None:
        tokenizer = Tokenizer(timeout_s=5)
        channel = Narrow()
        tokenizer.connected(channel)
        long = PrepareItem("long", "e", "", TextPrompt("long"), 10)
        asked = [asyncio.ensure_future(tokenizer.prepare(i)) for i in (item("a"), long, item("b"))]
        with pytest.raises(ProtocolViolation):
            await asked[1]
        assert [m.items[0].request_id for m in await channel.receive()] == ["a", "b"]
        tokenizer.close()
        await asyncio.wait(asked)

    run(main)


def test_a_tokenizer_stuck_on_a_prompt_is_reported() -> None:
    async def main() -> None:
        stuck: list[bool] = []
        tokenizer = Tokenizer(timeout_s=0.01, on_stuck=lambda: stuck.append(True))
        ours, _worker = memory.pair()
        tokenizer.connected(ours)
        asked = [asyncio.ensure_future(tokenizer.prepare(item(name))) for name in "ab"]
        for answer in asked:
            with pytest.raises(WorkerLost):
                await answer
        assert stuck == [True]  # once: for the one at work

    run(main)


def test_a_prompt_that_takes_too_long_is_given_up() -> None:
    async def main() -> None:
        tokenizer = Tokenizer(timeout_s=0.01)
        with pytest.raises(WorkerLost, match="not tokenized"):
            await tokenizer.prepare(item("a"))

    run(main)


def test_a_tokenizer_that_keeps_dying_is_restarted_ever_more_slowly() -> None:
    tokenizer = Tokenizer(timeout_s=1)
    waits = [tokenizer.next_start_s() for _ in range(9)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == 5
    assert [tokenizer.next_start_s() for _ in range(2000)][-1] == 5


# the gate


class Nobody:
    """An authorizer that allows reading only."""

    def authorize(self, principal: Principal, action: Action, resource: Resource) -> None:
        if action is not Action.READ_MODELS:
            raise PermissionDenied(f"{principal.name} may not {action}")


async def _hello(kernel: Any, call: Call, body: Any) -> sc.Done:
    return sc.Done(f"hello {call.principal.name}")


async def _bug(kernel: Any, call: Call, body: Any) -> sc.Done:
    raise ZeroDivisionError


async def _for_ever(kernel: Any, call: Call, body: Any) -> sc.Done:
    await asyncio.Event().wait()
    raise AssertionError


TABLE = {
    sc.ListModels: Entry(_hello, Action.READ_MODELS, lambda b: Resource("model")),
    sc.ListKeys: Entry(_hello, Action.ADMIN_KEYS, lambda b: Resource("key")),
    sc.ShowModel: Entry(_bug, Action.READ_MODELS, lambda b: Resource("model")),
    sc.LoadModel: Entry(_for_ever, Action.READ_MODELS, lambda b: Resource("model")),
    sc.Health: Entry(_hello, None, lambda b: Resource("system")),
}


class Front:
    """A front end at a gate of the table above."""

    def __init__(self) -> None:
        self.cancelled: list[tuple[str, str]] = []
        self.channel, ours = memory.pair()
        gate = Gate(None, TABLE, Nobody(), lambda *what: self.cancelled.append(what))
        self.serving = asyncio.ensure_future(gate.serve(ours))

    async def ask(self, *messages: Any) -> list[Any]:
        for message in messages:
            self.channel.send(message)
        return await asyncio.wait_for(self.channel.receive(), 5)


def test_the_gate_authorizes_answers_and_names_the_caller() -> None:
    async def main() -> None:
        front = Front()
        assert await front.ask(sc.Syscall(1, ME, sc.ListModels())) == [
            sc.Reply(1, sc.Done("hello me"))
        ]
        (refused,) = await front.ask(sc.Syscall(2, ME, sc.ListKeys()))
        assert refused.error.code == "permission_denied"
        (refused,) = await front.ask(sc.Syscall(3, None, sc.ListModels()))
        assert refused.error.code == "permission_denied"
        (reply,) = await front.ask(sc.Syscall(4, None, sc.Health()))
        assert reply.result == sc.Done("hello nobody")

    run(main)


def test_a_handlers_bug_is_an_answer_and_the_gate_lives_on() -> None:
    async def main() -> None:
        front = Front()
        (refused,) = await front.ask(sc.Syscall(1, ME, sc.ShowModel("x")))
        assert refused.error.code == "internal_error"
        assert "ZeroDivisionError" in refused.error.message
        assert await front.ask(sc.Syscall(2, ME, sc.ListModels()))

    run(main)


def test_a_call_can_be_cancelled_and_its_number_used_once() -> None:
    async def main() -> None:
        front = Front()
        call = sc.Syscall(1, ME, sc.LoadModel("x"))
        (twice,) = await front.ask(call, call)
        assert twice.error.code == "protocol_violation"
        (refused,) = await front.ask(sc.Cancel(1, "left"))
        assert refused.error.code == "cancelled"

    run(main)


def test_a_front_end_that_goes_takes_its_calls_with_it() -> None:
    async def main() -> None:
        front = Front()
        front.channel.send(sc.Syscall(1, ME, sc.LoadModel("x")))
        await asyncio.sleep(0)
        front.channel.close()
        await asyncio.wait_for(front.serving, 5)
        assert len(asyncio.all_tasks()) <= 2

    run(main)


def test_every_system_call_is_in_the_table() -> None:
    assert set(SYSCALLS) == set(typing.get_args(sc.Body))
    assert {type_ for type_, entry in SYSCALLS.items() if entry.action is None} == {sc.Health}
