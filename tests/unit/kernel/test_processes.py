"""The process table, and the system calls on it: who is remembered, who sees and touches what."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmos.abi import syscall as sc
from llmos.abi.events import Finished, FinishReason
from llmos.abi.inference import Options, PrepareItem, Sampling, TextPrompt, Usage
from llmos.abi.principal import Principal, Role, ServiceClass
from llmos.abi.registry import ModelVersion
from llmos.errors import ErrorInfo, InvalidRequest, NotFound, PermissionDenied
from llmos.ipc import memory
from llmos.kernel import sys_infer, sys_processes
from llmos.kernel.config import KernelConfig
from llmos.kernel.core import events as ev
from llmos.kernel.front import Call, FrontEnd
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Phase, Process, ProcessTable
from llmos.kernel.spills import Spills
from llmos.kernel.stream import Bounds, Stream
from llmos.security.authorizer import RoleAuthorizer

ALICE = Principal("prn_a", "ten_a", "alice", max_class=ServiceClass.DEFAULT)
BOB = Principal("prn_b", "ten_b", "bob")
ROOT = Principal("prn_r", "ten_r", "root", role=Role.ADMIN)
WISH = sc.Infer("echo", TextPrompt("秘密🙂"), Sampling(), Options())
VERSION = cast(
    ModelVersion,
    SimpleNamespace(
        ref="echo:1",
        prepare="",
        folder="",
        vocab_size=8,
        driver="echo",
        chosen="",
        kinds=["generate"],
        adapter=None,
    ),
)


async def _nothing(*_: Any) -> list[Any]:
    return []


NO_JOBS = SimpleNamespace(entries={}, store=SimpleNamespace(page=_nothing))


def call_of(principal: Principal) -> Call:
    return Call(1, principal, FrontEnd(memory.pair()[1]))


def process(name: str, owner: Principal = ALICE) -> Process:
    stream = Stream(call_of(owner), name, Bounds(8, 4), lambda *_: None)
    return Process(
        name, owner, VERSION, WISH, ServiceClass.DEFAULT, stream,
        time.time_ns(), time.monotonic_ns(), phase=Phase.WAITING,
    )  # fmt: skip


def end(table: ProcessTable, one: Process, ended_ns: int | None = None) -> None:
    one.end(Finished(one.request_id, FinishReason.STOP, Usage()), ended_ns or time.time_ns())
    table.retire(one)


class World:
    """A table behind the real authorizer, and what the core would be told."""

    def __init__(self, *processes: Process, ended_kept: int = 8) -> None:
        self.table = ProcessTable(ended_kept, 3600.0)
        self.posted: list[Any] = []
        self.cancelled: list[tuple[str, str]] = []
        for one in processes:
            self.table.add(one)
        made = SimpleNamespace(
            table=self.table,
            authorizer=RoleAuthorizer(),
            loop=SimpleNamespace(post=self.posted.append),
            cancel=lambda *what: self.cancelled.append(what),
            jobs=NO_JOBS,
        )
        self.kernel = cast(Kernel, made)

    def ask(self, who: Principal, body: Any) -> Any:
        """As the gate would."""
        handlers: dict[type, Any] = {
            sc.ListProcesses: sys_processes.list_processes,
            sc.ShowProcess: sys_processes.show_process,
            sc.WaitProcess: sys_processes.wait_process,
            sc.NiceProcess: sys_processes.nice_process,
            sc.KillProcess: sys_processes.kill_process,
        }
        return handlers[type(body)](self.kernel, call_of(who), body)

    def say(self, who: Principal, body: Any) -> Any:
        return asyncio.run(self.ask(who, body))


def test_ended_ones_are_remembered_up_to_a_number() -> None:
    async def main() -> None:
        table = ProcessTable(ended_kept=2, ended_kept_s=10.0)
        three = [process(f"req_{i}") for i in range(3)]
        for one in three:
            table.add(one)
            end(table, one)
        assert [info.process_id for info in table.infos()] == ["req_2", "req_1"]
        assert table.find_story("req_0") is None

    asyncio.run(main())


def test_what_ended_too_long_ago_is_not_found_by_its_name_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        old, new = process("req_1"), process("req_2")
        table = ProcessTable(ended_kept=8, ended_kept_s=10.0)
        for one, ago_s in ((old, 9.0), (new, 0.0)):
            table.add(one)
            end(table, one, time.time_ns() - int(ago_s * 1e9))
        assert table.find_story("req_1") is not None
        with monkeypatch.context() as patch:
            later_ns = time.time_ns() + 5_000_000_000
            patch.setattr(time, "time_ns", lambda: later_ns)
            assert table.find_story("req_1") is None
            assert [info.process_id for info in table.infos()] == ["req_2"]

    asyncio.run(main())


def test_a_wait_that_was_longer_than_predicted_is_not_said_to_be_over() -> None:
    one = process("req_1")
    one.phase, now_ns = Phase.WAITING, time.time_ns()
    one.expected_start_ns = now_ns + 3_600_000_000_000
    assert 3500 < (one.info().eta_s or 0) <= 3600
    one.renice(5, None, "root")
    assert one.info().eta_s is None  # nobody knows what that has changed
    one.expected_start_ns = now_ns - 1
    assert one.info().eta_s is None


def test_a_client_is_told_with_which_class_it_ended() -> None:
    one = process("req_1")
    one.renice(None, ServiceClass.BATCH, "root")
    assert one.served().service_class is ServiceClass.BATCH


def test_a_tenant_is_counted_while_it_has_something_live() -> None:
    table, mine, other = ProcessTable(8, 10.0), process("req_1"), process("req_2", BOB)
    table.add(mine)
    table.add(other)
    assert [table.num_live_of(p.tenant_id) for p in (ALICE, BOB, ROOT)] == [1, 1, 0]
    end(table, mine)
    table.retire(mine)
    assert [table.num_live_of(p.tenant_id) for p in (ALICE, BOB, ROOT)] == [0, 1, 0]


def test_a_user_sees_the_own_tenant_and_an_administrator_everybody() -> None:
    world = World(process("req_a"), process("req_b", BOB))
    seen = {
        who.name: {info.process_id for info in world.say(who, sc.ListProcesses()).processes}
        for who in (ALICE, BOB, ROOT)
    }
    assert seen == {"alice": {"req_a"}, "bob": {"req_b"}, "root": {"req_a", "req_b"}}


@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize(
    "make", [sc.ShowProcess, sc.KillProcess, lambda i: sc.WaitProcess(i, 0.0),
             lambda i: sc.NiceProcess(i, 5)]
)  # fmt: skip
def test_anothers_process_answers_as_one_that_never_was(make: Any, is_live: bool) -> None:
    one = process("req_1")
    world = World(one)
    if not is_live:
        end(world.table, one)
    said = []
    for name in ("req_1", "req_2"):
        with pytest.raises(NotFound) as caught:
            world.say(BOB, make(name))
        said.append(caught.value.message.replace(name, "ID"))
    assert said[0] == said[1]
    assert (world.posted, world.cancelled) == ([], [])


def test_who_has_ended_is_told_from_who_never_was() -> None:
    one = process("req_1")
    world = World(one)
    end(world.table, one)
    for body in (sc.KillProcess("req_1"), sc.NiceProcess("req_1", 5)):
        with pytest.raises(NotFound, match="has ended already: finished"):
            world.say(ALICE, body)
    with pytest.raises(NotFound, match="no live process req_2"):
        world.say(ALICE, sc.KillProcess("req_2"))


def test_nice_tells_the_core_and_keeps_to_the_keys_highest_class() -> None:
    one = process("req_1")
    world = World(one)
    world.say(ALICE, sc.NiceProcess("req_1", 5, ServiceClass.BATCH))
    assert world.posted == [ev.Reniced("req_1", 5, ServiceClass.BATCH)]
    assert (one.nice, one.service_class) == (5, ServiceClass.BATCH)
    with pytest.raises(PermissionDenied):
        world.say(ALICE, sc.NiceProcess("req_1", None, ServiceClass.INTERACTIVE))
    for wrong in (-21, 20, 10**30):
        with pytest.raises(InvalidRequest):
            world.say(ALICE, sc.NiceProcess("req_1", wrong))
    assert len(world.posted) == 1
    assert (one.nice, one.service_class) == (5, ServiceClass.BATCH)


@pytest.mark.parametrize("ended_kept", [0, 8])
def test_who_waits_hears_the_end_however_short_it_is_remembered(ended_kept: int) -> None:
    async def main() -> None:
        one = process("req_1")
        world = World(one, ended_kept=ended_kept)
        waiting = asyncio.ensure_future(world.ask(ALICE, sc.WaitProcess("req_1", 60.0)))
        await asyncio.sleep(0)
        end(world.table, one)
        story = await asyncio.wait_for(waiting, 5)
        assert (story.info.state, story.info.ended_ns) == ("finished", one.ended_ns)

    asyncio.run(main())


def test_a_prompt_over_the_bounds_on_numbers_is_refused_before_it_is_read() -> None:
    """One tenant may have two open and all may have three, also while prompts are still read."""

    async def main() -> None:
        world, refused, read = World(), [], []
        kernel = cast(Any, world.kernel)

        async def prepare(item: PrepareItem) -> None:
            read.append(item.request_id)
            await asyncio.Event().wait()

        kernel.config = KernelConfig(max_open_per_tenant=2, max_open_requests=3)
        kernel.tracer = None
        kernel.draining, kernel.registry = False, SimpleNamespace(resolve=lambda _: VERSION)
        kernel.new_stream = lambda call, name, *_: process(name, call.principal).stream
        kernel.tokenizers = SimpleNamespace(prepare=prepare)
        kernel.placement = SimpleNamespace(context_length=lambda _: 16, check=lambda *_: None)
        kernel.spills = Spills(Path("nowhere"))
        kernel.abandon = lambda one, *_: world.table.retire(one)

        def refuse(one: Process, error: ErrorInfo) -> None:
            refused.append((one.principal.name, error.code, error.details))
            world.table.retire(one)

        kernel.refused = refuse
        asked = [
            asyncio.ensure_future(sys_infer.infer(world.kernel, call_of(who), WISH))
            for who in (ALICE, ALICE, ALICE, BOB, BOB, ALICE)
        ]
        await asyncio.sleep(0)
        assert [(name, code) for name, code, _ in refused] == [
            ("alice", "quota_exceeded"),
            ("bob", "queue_full"),
            ("alice", "quota_exceeded"),
        ]
        assert [details["position"] for *_, details in refused] == [3, 4, 3]
        assert len(read) == len(world.table.live) == 3
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)
        assert world.table.num_live_of("ten_a") == 0

    asyncio.run(main())


def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    async def main() -> None:
        world = World(process("req_1"))
        story = await world.ask(ALICE, sc.WaitProcess("req_1", 0.0))
        assert story.info.ended_ns is None
        waiting = asyncio.ensure_future(world.ask(ALICE, sc.WaitProcess("req_1", 60.0)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not world.table._watchers
        for wrong in (-1.0, 3601.0, float("nan"), float("inf")):
            with pytest.raises(InvalidRequest):
                await world.ask(ALICE, sc.WaitProcess("req_1", wrong))

    asyncio.run(main())
