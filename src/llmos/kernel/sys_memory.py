"""System call: who holds how much memory, by the ledger and as measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmos.abi import syscall as sc
from llmos.abi.memory import DeviceMemory, Holding, LackOfRoom, MemoryInfo
from llmos.abi.suspended import Tier
from llmos.kernel.core.jobs import SPARE
from llmos.kernel.front import Call

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


async def show_memory(kernel: Kernel, call: Call, body: sc.ShowMemory) -> MemoryInfo:
    """Every ledger, who waits for room, and the snapshots on the disk."""
    state, now_ns = kernel.state, time.monotonic_ns()
    on_disk = [
        process.snapshot.size_bytes
        for process in kernel.table.live.values()
        if process.snapshot is not None
        and (request := state.requests.get(process.request_id)) is not None
        and request.memory_owner is None
    ]
    return MemoryInfo(
        devices=[_device(kernel, name) for name in state.ledgers],
        lacking=[
            LackOfRoom(
                state.models[model_id].ref,
                sum(state.needs(state.models[model_id]).values()),
                (now_ns - since_ns) / 1e9,
                state.lack_reason.get(model_id, ""),
            )
            for model_id, since_ns in state.lacking.items()
        ],
        num_snapshots=len(on_disk),
        disk_snapshot_bytes=sum(on_disk),
        disk_free_bytes=max(0, kernel.switch.free_bytes(Tier.DISK)),
    )


def _device(kernel: Kernel, name: str) -> DeviceMemory:
    ledger = kernel.state.ledgers[name]
    resident = kernel.workers.resident_bytes() | dict(kernel.workers.program_rss())
    return DeviceMemory(
        device=name,
        total_bytes=kernel.memory.total.get(name, 0),
        budget_bytes=ledger.budget_bytes,
        reserved_bytes=ledger.reserved_bytes,
        available_bytes=kernel.memory.available.get(name),
        holdings=[
            _holding(kernel, owner, size, resident.get(owner))
            for owner, size in ledger.owners().items()
        ],
    )


def _holding(kernel: Kernel, owner: str, size: int, measured: int | None) -> Holding:
    """By what the owner's name says it is."""
    state = kernel.state
    if (replica := state.replicas.get(owner)) is not None:
        what = replica.model.ref
        return Holding(owner, "replica", what, size, measured, str(replica.state))
    if (job := state.jobs.jobs.get(owner)) is not None:
        entry = kernel.jobs.entries.get(owner)
        what = entry.record.spec.program if entry is not None else ""
        return Holding(owner, "job", what, size, measured, str(job.phase))
    if owner == SPARE:
        return Holding(owner, "spare", "a warm program worker", size)
    kind, request_id = owner.split(":")[:2]
    process = kernel.table.live.get(request_id)
    what, where = ("", "") if process is None else (process.version.ref, str(process.phase))
    return Holding(request_id, kind, what, size, None, where)
