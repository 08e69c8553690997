"""The gate client: demultiplexing, credit, cancellation, and nobody left waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmos.abi.events import Tokens
from llmos.abi.inference import Sampling, TextPrompt
from llmos.abi.principal import Principal
from llmos.abi.registry import PullProgress
from llmos.abi.syscall import (
    Ack,
    Done,
    Health,
    HealthReport,
    Infer,
    ListModels,
    LoadModel,
    Model,
    ModelList,
    PullModel,
    Syscall,
)
from llmos.errors import ModelNotFound, QueueFull, ShuttingDown, WorkerLost
from tests.unit.api.fake_gate import ADMIN, FakeGate, edge, finished, model, tokens

INFER = Infer("echo", TextPrompt("x"), Sampling())


async def _silent(gate: FakeGate, call: Syscall) -> None:
    return None


async def _accept_only(gate: FakeGate, call: Syscall) -> None:
    gate.accept(call)


def test_answers_reach_their_own_callers() -> None:
    async def scene() -> None:
        async with edge() as e:
            models, health = await asyncio.gather(
                e.gate_client.call(ADMIN, ListModels()), e.gate_client.call(None, Health())
            )
            assert isinstance(models, ModelList)
            assert isinstance(health, HealthReport)

    asyncio.run(scene())


def test_a_refusal_is_the_same_error_again() -> None:
    async def full(gate: FakeGate, call: Syscall) -> None:
        raise QueueFull("full", retry_after_s=2.5)

    async def scene() -> None:
        async with edge({Infer: full}) as e:
            with pytest.raises(QueueFull) as caught:
                await e.gate_client.infer(ADMIN, INFER)
            assert caught.value.retry_after_s == 2.5

    asyncio.run(scene())


def test_a_batch_holds_all_that_arrived_and_is_acknowledged_when_delivered() -> None:
    async def scene() -> None:
        async with edge({Infer: _accept_only}) as e:
            stream = await e.gate_client.infer(ADMIN, INFER)
            call = e.gate.calls[0]
            e.gate.emit(call, *tokens("a"))
            e.gate.emit(call, *tokens("b", "c"))
            first = await anext(stream)
            assert [ev.text for ev in first if isinstance(ev, Tokens)] == ["a", "b", "c"]
            assert e.gate.acks == []
            e.gate.emit(call, finished())
            assert len(await anext(stream)) == 1
            await e.gate.until(lambda: e.gate.acks == [Ack(call.call, 3)])
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    asyncio.run(scene())


@pytest.mark.parametrize("accepted", [True, False])
def test_cancel_tells_the_gate_once_and_ends_the_wait(accepted: bool) -> None:
    async def scene() -> None:
        async with edge({Infer: _accept_only if accepted else _silent}) as e:
            stream = e.gate_client.start_infer(ADMIN, INFER)
            if accepted:
                await stream.accept()
                waiting = asyncio.ensure_future(anext(stream))
            else:
                waiting = asyncio.ensure_future(stream.accept())
            await e.gate.until(lambda: bool(e.gate.calls))
            stream.cancel("left", ShuttingDown("gone"))
            stream.cancel("left", ShuttingDown("gone"))
            with pytest.raises(ShuttingDown):
                await waiting
            await e.gate.until(lambda: len(e.gate.cancels) == 1)

    asyncio.run(scene())


def test_cancelling_the_task_that_waits_for_acceptance_cancels_the_call() -> None:
    async def scene() -> None:
        async with edge({Infer: _silent}) as e:
            waiting = asyncio.ensure_future(e.gate_client.infer(ADMIN, INFER))
            await e.gate.until(lambda: bool(e.gate.calls))
            waiting.cancel()
            await e.gate.until(lambda: len(e.gate.cancels) == 1)

    asyncio.run(scene())


def test_a_closed_channel_fails_everyone_and_everything_later() -> None:
    async def scene() -> None:
        async with edge({Infer: _accept_only, LoadModel: _silent, PullModel: _silent}) as e:
            stream = await e.gate_client.infer(ADMIN, INFER)
            waits: list[Any] = [
                asyncio.ensure_future(anext(stream)),
                asyncio.ensure_future(e.gate_client.call(ADMIN, LoadModel("x"))),
                asyncio.ensure_future(anext(e.gate_client.pull(ADMIN, PullModel("hf:a/b")))),
            ]
            await e.gate.until(lambda: len(e.gate.calls) == 3)
            e.gate.channel.close()
            for result in await asyncio.gather(*waits, return_exceptions=True):
                assert isinstance(result, WorkerLost)
            with pytest.raises(WorkerLost):
                await e.gate_client.call(None, Health())

    asyncio.run(scene())


def test_close_fails_waiters_with_shutting_down() -> None:
    async def scene() -> None:
        async with edge({LoadModel: _silent}) as e:
            waiting = asyncio.ensure_future(e.gate_client.call(ADMIN, LoadModel("x")))
            await e.gate.until(lambda: bool(e.gate.calls))
            await e.gate_client.close()
            with pytest.raises(ShuttingDown):
                await waiting

    asyncio.run(scene())


def test_a_pull_streams_progress_and_then_has_its_result() -> None:
    async def pull(gate: FakeGate, call: Syscall) -> None:
        gate.emit(call, PullProgress("hash", "a", 1, 2))
        gate.reply(call, Model(model()))

    async def scene() -> None:
        async with edge({PullModel: pull}) as e:
            stream = e.gate_client.pull(ADMIN, PullModel("hf:a/b"))
            seen = [p async for batch in stream for p in batch]
            assert [p.phase for p in seen] == ["hash"]
            assert isinstance(stream.result, Model)

    asyncio.run(scene())


def test_a_refused_pull_raises() -> None:
    async def pull(gate: FakeGate, call: Syscall) -> None:
        raise ModelNotFound("no such repository")

    async def scene() -> None:
        async with edge({PullModel: pull}) as e:
            with pytest.raises(ModelNotFound):
                await anext(e.gate_client.pull(ADMIN, PullModel("hf:a/b")))

    asyncio.run(scene())


def test_late_answers_of_forgotten_calls_are_dropped() -> None:
    async def scene() -> None:
        async with edge({Infer: _accept_only, LoadModel: _silent}) as e:
            stream = await e.gate_client.infer(ADMIN, INFER)
            stream.cancel("left", ShuttingDown("gone"))
            lost = asyncio.ensure_future(e.gate_client.call(ADMIN, LoadModel("x")))
            await e.gate.until(lambda: len(e.gate.calls) == 2)
            lost.cancel()
            e.gate.emit(e.gate.calls[0], *tokens("late"), finished())
            e.gate.reply(e.gate.calls[1], Done("late"))
            assert isinstance(await e.gate_client.call(None, Health()), HealthReport)

    asyncio.run(scene())


def test_the_principal_crosses_unchanged() -> None:
    async def scene() -> None:
        async with edge() as e:
            await e.gate_client.call(ADMIN, ListModels(), "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
            (call,) = e.gate.calls
            assert isinstance(call.principal, Principal)
            assert call.trace_parent is not None

    asyncio.run(scene())
