"""The context switch carried out: which file is whose, and who is told, whatever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from llmos.abi import worker as msg
from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Failed
from llmos.abi.inference import Prepared
from llmos.abi.suspended import SuspendedRequest, Tier
from llmos.errors import (
    Conflict,
    DiskFull,
    EngineFailed,
    InvalidRequest,
    NotFound,
    SnapshotRejected,
    StorageError,
)
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.process import Phase, ProcessTable
from llmos.kernel.stream import Kept
from llmos.kernel.switch import Switch
from llmos.kernel.workers import Workers
from llmos.telemetry.metrics import Metrics
from tests.unit.kernel.test_processes import VERSION, process

REF = SnapshotRef("snp_1", "/memory/snp_1", 9, "sha256:1", "w", "f32", "echo", 1, "ten_a")
DISK = msgspec.structs.replace(REF, path="/disk/snp_1")
NEWER = msgspec.structs.replace(REF, snapshot_id="snp_2", path="/memory/snp_2")


class Store:
    """Remembers what was done, and fails on command."""

    def __init__(self) -> None:
        self.discarded: list[str] = []
        self.records: dict[str, SuspendedRequest] = {}
        self.error: Exception | None = None
        self.free = dict.fromkeys(Tier, 1 << 30)
        self.gate = asyncio.Event()
        self.gate.set()

    def folder(self, tier: Tier) -> str:
        return f"/{tier}"

    def free_bytes(self, tier: Tier) -> int:
        return self.free[tier]

    async def spill(self, ref: SnapshotRef) -> SnapshotRef:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return msgspec.structs.replace(ref, path=ref.path.replace("/memory/", "/disk/"))

    def discard(self, ref: SnapshotRef) -> None:
        self.discarded.append(ref.path)

    async def keep(self, request: SuspendedRequest) -> None:
        if self.error is not None:
            raise self.error
        self.records[request.request_id] = request

    async def forget(self, request_id: str) -> None:
        self.records.pop(request_id, None)

    async def recover(self) -> list[SuspendedRequest]:
        return []


class World:
    """A switch between doubles, with one process in its table."""

    def __init__(self, *, is_kept: bool = False) -> None:
        self.store, self.table = Store(), ProcessTable(10, 60.0)
        self.events: list[Any] = []
        self.sent: list[Any] = []
        self.switch = Switch(self.store, self.table, self.events.append, Metrics())
        self.switch.workers = cast(Workers, SimpleNamespace(send=lambda _, m: self.sent.append(m)))
        self.process = process("req_1")
        facts = {"model_id": "mdl_1", "kv_bytes_per_token": 4}
        self.process.version = cast(Any, SimpleNamespace(**(vars(VERSION) | facts)))
        self.process.prepared = Prepared("req_1", bytes(8), 2)
        self.process.stream.kept = Kept(10) if is_kept else None
        self.process.started_ns = 1
        self.table.add(self.process)

    async def ready(self) -> World:
        """With both tiers measured."""
        await self.switch.measure()
        return self

    def apply(self, decision: Any) -> None:
        self.switch.appliers[type(decision)](decision)

    def suspend(self, tier: Tier | None = Tier.MEMORY) -> None:
        self.apply(do.SuspendRow("req_1", "rep_1", "why", tier))

    def told(self, ref: SnapshotRef | None, error: Exception | None = None) -> None:
        info = None if error is None else cast(Any, error).to_info()
        self.switch.on_suspended(msg.Suspended("req_1", ref, info))

    def submission(self, *, resumes: bool = True) -> Any:
        return self.switch.submission(self.process, do.Dispatch("req_1", "rep_1", "x", resumes))


Test = Callable[[], Coroutine[Any, Any, None]]


def run(test: Test) -> None:
    asyncio.run(test())


def test_out_and_in_again() -> None:
    async def go() -> None:
        world = await World().ready()
        world.suspend()
        assert world.sent == [msg.Suspend(["req_1"], "/memory")]
        assert world.process.phase is Phase.SUSPENDING
        world.told(REF)
        assert world.events == [ev.Suspended("req_1", 9, is_on_disk=False)]
        world.apply(do.Requeue("req_1", "why"))
        assert world.process.phase is Phase.SUSPENDED
        resume = world.submission()
        assert isinstance(resume, msg.Resume)
        assert resume.snapshot == REF
        world.apply(do.DropSnapshot("req_1"))
        await world.switch.settle()
        assert world.store.discarded == [REF.path]
        assert world.process.served().num_suspensions == 1

    run(go)


def test_a_newer_snapshot_is_not_deleted_for_an_older_one() -> None:
    async def go() -> None:
        world = await World().ready()
        world.suspend()
        world.told(REF)
        world.apply(do.DropSnapshot("req_1"))
        world.told(NEWER)  # before the task that deletes the old one has run
        await world.switch.settle()
        assert world.process.snapshot == NEWER
        assert world.store.discarded == [REF.path]

    run(go)


def test_of_a_request_that_has_ended_nothing_stays() -> None:
    async def go() -> None:
        world = await World().ready()
        world.suspend()
        world.table.retire(world.process)
        world.told(REF)
        assert world.store.discarded == [REF.path]
        assert world.events == []

    run(go)


def test_without_room_in_memory_the_disk_is_used_and_without_any_it_stays() -> None:
    async def go() -> None:
        world = await World().ready()
        world.store.free = {Tier.MEMORY: 10, Tier.DISK: 300_000}
        await world.switch.measure()
        world.suspend(Tier.MEMORY)
        assert world.sent == [msg.Suspend(["req_1"], "/disk")]
        world.told(DISK)
        assert world.events == [ev.Suspended("req_1", 9, is_on_disk=True)]
        held = world.switch.when_held("req_1")
        world.suspend(Tier.DISK)  # what was promised before is not there any more
        assert len(world.sent) == 1
        assert world.events[-1].error.code == "disk_full"
        with pytest.raises(DiskFull):
            await held
        await world.switch.measure()
        world.suspend(Tier.DISK)
        assert len(world.sent) == 2

    run(go)


def test_a_hold_that_is_taken_back_is_answered() -> None:
    async def go() -> None:
        world = await World().ready()
        held = world.switch.when_held("req_1")
        world.apply(do.Requeue("req_1", "resumed"))
        with pytest.raises(Conflict):
            await held

    run(go)


def test_one_that_ends_while_its_record_is_written_has_none() -> None:
    async def go() -> None:
        world = await World(is_kept=True).ready()
        world.told(REF)
        world.store.gate.clear()
        world.apply(do.HoldRequest("req_1", "by me"))
        await asyncio.sleep(0)
        world.process.phase = Phase.ABORTED
        world.switch.closed(world.process)
        world.store.gate.set()
        await world.switch.settle()
        assert world.store.records == {}
        assert world.process.snapshot is None

    run(go)


def test_without_snapshots_its_worker_forgets_it_and_it_is_computed_again() -> None:
    async def go() -> None:
        world = await World().ready()
        world.process.generated.extend([7, 8])
        world.suspend(None)
        assert world.sent == [msg.Abort(["req_1"], "suspended")]
        assert world.process.is_forgotten
        world.switch.on_forgotten(world.process)
        assert world.events == [ev.Suspended("req_1", None)]
        submit = world.submission()
        assert submit.items[0].generated == world.process.generated.tobytes()
        assert world.process.served().num_recomputed == 1

    run(go)


def test_a_refused_snapshot_is_no_end_but_once() -> None:
    async def go() -> None:
        world = await World().ready()
        world.suspend()
        world.told(REF)
        world.submission()
        failed = Failed("req_1", SnapshotRejected("it is damaged").to_info())
        assert world.switch.on_rejected(world.process, failed)
        assert world.events[-1] == ev.SnapshotLost("req_1", "it is damaged")
        world.apply(do.DropSnapshot("req_1"))
        assert isinstance(world.submission(), msg.Submit)
        assert not world.switch.on_rejected(world.process, failed)  # there is none any more
        served = world.process.served()
        assert (served.num_suspensions, served.num_recomputed) == (1, 1)

    run(go)


def test_a_failure_of_going_on_is_none_of_the_request_and_one_of_its_own_is() -> None:
    async def go() -> None:
        world = await World().ready()
        world.told(REF)
        world.submission()
        bad = Failed("req_1", InvalidRequest("no").to_info())
        assert not world.switch.on_rejected(world.process, bad)
        full = Failed("req_1", EngineFailed("out of memory").to_info())
        assert world.switch.on_rejected(world.process, full)
        assert not world.switch.on_rejected(world.process, full)

    run(go)


def test_who_waits_for_a_hold_is_told_how_it_went() -> None:
    async def go() -> None:
        world = await World().ready()
        held, refused, ended = (world.switch.when_held("req_1") for _ in range(3))
        world.apply(do.HoldRequest("req_1", "by me"))
        assert held.done() and refused.done() and ended.done()
        refused = world.switch.when_held("req_1")
        world.apply(do.RefuseHold("req_1", DiskFull("full").to_info()))
        with pytest.raises(DiskFull):
            await refused
        ended = world.switch.when_held("req_1")
        world.switch.closed(world.process)
        with pytest.raises(NotFound):
            await ended

    run(go)


def test_what_outlives_the_server_is_on_record_until_it_moves_on() -> None:
    async def go() -> None:
        world = await World(is_kept=True).ready()
        world.process.generated.extend([7])
        world.told(REF)
        world.process.is_held = True
        world.apply(do.HoldRequest("req_1", "by me"))
        assert world.table.empty.is_set()  # a stopping server need not wait
        await world.switch.settle()
        record = world.store.records["req_1"]
        assert (record.snapshot, record.is_held, record.generated) == (
            *(DISK, True, world.process.generated.tobytes()),
        )
        assert world.store.discarded == [REF.path]
        world.apply(do.Requeue("req_1", "resumed"))
        assert not world.table.empty.is_set()
        world.process.phase = Phase.RUNNING
        world.apply(do.DropSnapshot("req_1"))
        await world.switch.settle()
        assert world.store.records == {}
        assert world.store.discarded == [REF.path, DISK.path]

    run(go)


def test_a_hold_is_told_when_it_is_on_record() -> None:
    async def go() -> None:
        world = await World(is_kept=True).ready()
        world.told(REF)
        world.store.gate.clear()
        held = world.switch.when_held("req_1")
        world.apply(do.HoldRequest("req_1", "by me"))
        await asyncio.sleep(0)
        assert not held.done()
        world.store.gate.set()
        await held
        assert "req_1" in world.store.records

    run(go)


def test_what_cannot_be_put_on_record_is_lost_with_the_server_and_nothing_else() -> None:
    async def go() -> None:
        world = await World(is_kept=True).ready()
        world.store.error = StorageError("broken")
        world.told(REF)
        world.apply(do.HoldRequest("req_1", "x"))
        await world.switch.settle()
        assert world.process.snapshot == REF
        assert not world.process.is_recorded

    run(go)


def test_a_spill_that_comes_too_late_keeps_the_file_in_use() -> None:
    async def go() -> None:
        world = await World().ready()
        world.told(REF)
        world.process.phase = Phase.SUSPENDED
        world.store.gate.clear()
        world.apply(do.SpillSnapshot("req_1", "room"))
        await asyncio.sleep(0)
        world.process.phase = Phase.RUNNING
        world.store.gate.set()
        await world.switch.settle()
        assert world.events[-1].error is not None
        assert world.store.discarded == [DISK.path]
        assert world.process.snapshot == REF

    run(go)


def test_a_spill_frees_the_memory() -> None:
    async def go() -> None:
        world = await World().ready()
        world.told(REF)
        world.process.phase = Phase.SUSPENDED
        world.apply(do.SpillSnapshot("req_1", "room"))
        await world.switch.settle()
        assert world.events[-1] == ev.Spilled("req_1")
        assert world.process.snapshot == DISK
        assert world.store.discarded == [REF.path]

    run(go)


def test_the_item_is_the_same_each_time() -> None:
    one = process("req_1")
    one.prepared = Prepared("req_1", bytes(8), 2)
    assert one.item() == one.item()
    one.generated.extend([1, 2])
    assert one.item().generated == b""
    again = one.recomputed()
    one.generated.extend([3])
    assert one.item() == again
