"""A job's front end: what it asks again, and what it hands to the program."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmos.abi import syscall as sc
from llmos.abi.events import Failed, Finished, FinishReason, ItemOutput, Outputs, Tokens
from llmos.abi.inference import Sampling, TextPrompt, Usage
from llmos.abi.jobs import JobRecord, JobSpec, JobState
from llmos.abi.principal import Principal, ServiceClass
from llmos.abi.program import Answer, Generate
from llmos.abi.syscall_jobs import SubmitJob
from llmos.abi.worker import Asks, Replied
from llmos.errors import LLMOSError, QueueFull, WorkerLost
from llmos.ipc import memory
from llmos.kernel.jobs.desk import Desk

OWNER = Principal("prn_1", "ten_1", "me")
JOB = JobRecord("job_1", OWNER, JobSpec("batch"), JobState.RUNNING, 0, 1)
ASKED = Generate("m", TextPrompt("x"), Sampling())
FULL = QueueFull("shed for class interactive", retry_after_s=0.01)


class World:
    """A desk, the gate's end of its channel, and what the program heard."""

    def __init__(self) -> None:
        ours, self.gate = memory.pair()
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()
        self.desk = Desk(ours, JOB, lambda _, answer: self.answers.put_nowait(answer), max_open=4)
        self.desk.ask(1, ASKED)

    async def asked(self) -> sc.Syscall:
        while True:
            for message in await asyncio.wait_for(self.gate.receive(), 5):
                if isinstance(message, sc.Syscall):
                    return message

    def accept(self, call: int) -> None:
        self.gate.send(sc.Reply(call, sc.Accepted("req_1", "m:1", 1, ServiceClass.BATCH, None, 0)))

    def emit(self, call: int, *events: Any) -> None:
        self.gate.send(sc.Emit(call, list(events)))

    async def heard(self) -> Answer:
        return await asyncio.wait_for(self.answers.get(), 5)


def failed(error: LLMOSError) -> Failed:
    return Failed("req_1", error.to_info())


@pytest.mark.parametrize("is_accepted", [True, False])
def test_a_call_without_room_is_asked_again_and_its_program_hears_the_answer_only(
    is_accepted: bool,
) -> None:
    async def main() -> None:
        world = World()
        first = await world.asked()
        if is_accepted:
            world.accept(first.call)
            world.emit(first.call, failed(FULL))
        else:
            world.gate.send(sc.Refused(first.call, FULL.to_info()))
        again = await world.asked()
        assert (again.call, again.body) == (first.call + 1, first.body)
        assert world.answers.empty()
        world.accept(again.call)
        end = Finished("req_1", FinishReason.STOP, Usage(1, 1))
        world.emit(again.call, Tokens("req_1", [7], "好"), end)
        assert (await world.heard()).text == "好"
        world.desk.close()

    asyncio.run(main())


@pytest.mark.parametrize("said", [[], [Tokens("req_1", [7], "half")]])
def test_what_failed_for_another_reason_or_half_way_is_the_programs_to_know(
    said: list[Tokens],
) -> None:
    async def main() -> None:
        world = World()
        first = await world.asked()
        world.accept(first.call)
        world.emit(first.call, *said, failed(FULL if said else WorkerLost("gone")))
        answer = await world.heard()
        assert answer.error is not None
        assert answer.token_ids == [7] * len(said)
        world.desk.close()

    asyncio.run(main())


def test_outputs_of_items_come_in_their_order() -> None:
    async def main() -> None:
        world = World()
        first = await world.asked()
        world.accept(first.call)
        later, earlier = ItemOutput(1, "b"), ItemOutput(0, error=FULL.to_info())
        world.emit(first.call, Outputs("req_1", [later]), Outputs("req_1", [earlier]))
        world.emit(first.call, Finished("req_1", FinishReason.STOP, Usage(3)))
        answer = await world.heard()
        assert answer.outputs == [earlier, later]
        assert answer.error is None
        world.desk.close()

    asyncio.run(main())


def test_items_that_were_answered_are_not_asked_again() -> None:
    """Shed half way, the program hears what there is, and why there is no more."""

    async def main() -> None:
        world = World()
        first = await world.asked()
        world.accept(first.call)
        world.emit(first.call, Outputs("req_1", [ItemOutput(0, "a")]), failed(FULL))
        answer = await world.heard()
        assert answer.error is not None
        assert [output.value for output in answer.outputs] == ["a"]
        world.desk.close()

    asyncio.run(main())


def test_a_system_call_is_answered_once_and_a_submitted_job_is_a_child() -> None:
    async def main() -> None:
        world = World()
        await world.asked()
        heard: asyncio.Queue[Replied] = asyncio.Queue()
        spec = JobSpec("task", parent_id="job_9", service_class=ServiceClass.INTERACTIVE)
        world.desk.ask_system(Asks(7, SubmitJob(spec)), heard.put_nowait)
        asked = await world.asked()
        assert isinstance(asked.body, SubmitJob)
        assert asked.principal == OWNER
        assert asked.body.spec.parent_id == "job_1"
        assert asked.body.spec.service_class == ServiceClass.BATCH
        world.gate.send(sc.Reply(asked.call, sc.Done("x")))
        world.desk.ask_system(Asks(8, sc.ShowModel("m")), heard.put_nowait)
        asked = await world.asked()
        world.gate.send(sc.Refused(asked.call, WorkerLost("no").to_info()))
        assert await heard.get() == Replied(7, sc.Done("x"))
        error = (await heard.get()).error
        assert error is not None
        assert error.code == WorkerLost.code
        world.desk.close()

    asyncio.run(main())
