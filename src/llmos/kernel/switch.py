"""The context switch carried out: snapshots written, read, spilled, kept across a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from llmos.abi import worker as msg
from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Failed
from llmos.abi.suspended import SnapshotStore, SuspendedRequest, Tier
from llmos.errors import (
    Conflict,
    DiskFull,
    ErrorInfo,
    LLMOSError,
    NotFound,
    WorkerError,
    WorkerLost,
    from_info,
)
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.events import CoreEvent
from llmos.kernel.core.holdings import HEADER_BYTES
from llmos.kernel.process import Phase, Process, ProcessTable
from llmos.kernel.workers import Workers
from llmos.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Switch:
    """Owns the files of suspended requests. Decides nothing: the core does.

    `post` hands the core an event, `workers` is set before the first decision.
    """

    workers: Workers

    def __init__(
        self,
        store: SnapshotStore,
        table: ProcessTable,
        post: Callable[[CoreEvent], None],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._table = table
        self._post = post
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._free_bytes: dict[Tier, int] = {}
        self._promised: dict[Tier, dict[str, int]] = {tier: {} for tier in Tier}
        self._written: set[str] = set()
        self.appliers: dict[type, Callable[[Any], None]] = {
            do.SuspendRow: self._suspend,
            do.HoldRequest: self._hold,
            do.RefuseHold: self._refuse_hold,
            do.Requeue: self._requeue,
            do.DropSnapshot: self._drop,
            do.SpillSnapshot: self._spill,
        }

    # for handlers

    def when_held(self, request_id: str) -> asyncio.Future[None]:
        """Done when the request is off the machine; fails when it cannot be, or has ended."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(request_id, []).append(future)
        return future

    def _tell(self, request_id: str, error: ErrorInfo | None) -> None:
        for future in self._waiters.pop(request_id, ()):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(from_info(error))

    # decisions

    def submission(self, process: Process, decision: do.Dispatch) -> msg.ToWorker:
        """What puts it on its replica: anew, from its snapshot, or from its tokens."""
        if not decision.resumes:
            return msg.Submit([process.item()])
        if process.snapshot is not None and not process.is_recomputing:
            process.num_suspensions += 1
            self._metrics.resumes.labels("snapshot").inc()
            _tell_log(
                logging.INFO, process.request_id, f"goes on from its snapshot: {decision.reason}"
            )
            return msg.Resume(process.item(), process.snapshot)
        process.num_suspensions += not process.is_recomputing
        process.num_recomputed += 1
        process.is_recomputing = False
        self._metrics.resumes.labels("recomputed").inc()
        _tell_log(logging.INFO, process.request_id, f"is computed again: {decision.reason}")
        return msg.Submit([process.recomputed()])

    def _suspend(self, decision: do.SuspendRow) -> None:
        process = self._table.live[decision.request_id]
        process.phase = Phase.SUSPENDING
        process.suspending_mono = time.monotonic_ns()
        if decision.is_for_another:
            process.num_preemptions += 1
            self._metrics.preemptions.labels(process.version.ref).inc()
        if decision.tier is None:
            process.note(f"leaves its worker, to be computed again: {decision.reason}")
            process.is_forgotten = True
            forget = msg.Abort([decision.request_id], "suspended")
            self.workers.send(decision.replica_id, forget)
            return
        tier = self._find_room(process, decision.tier)
        if tier is None:
            full = DiskFull("neither memory nor disk has room for its snapshot").to_info()
            self._fail(decision.request_id, full)
            return
        process.note(f"leaves its worker (snapshot to {tier}): {decision.reason}")
        process.snapshot_tier = tier
        suspend = msg.Suspend([decision.request_id], self._store.folder(tier))
        self.workers.send(decision.replica_id, suspend)

    def _find_room(self, process: Process, wanted: Tier) -> Tier | None:
        """Where its snapshot fits, the disk where memory has no room. It is counted from now on."""
        num_tokens = len(process.generated) + (
            process.prepared.num_tokens if process.prepared else 0
        )
        size = HEADER_BYTES + num_tokens * process.version.kv_bytes_per_token
        for tier in dict.fromkeys((wanted, Tier.DISK)):
            if self.free_bytes(tier) >= size:
                self._promised[tier][process.request_id] = size
                return tier
        return None

    def free_bytes(self, tier: Tier) -> int:
        """As last measured, less what is being written since."""
        return self._free_bytes.get(tier, 0) - sum(self._promised[tier].values())

    async def measure(self) -> None:
        """Both tiers, off the loop: a disk may be slow to answer."""
        written, self._written = self._written, set()
        for tier in Tier:
            self._free_bytes[tier] = await asyncio.to_thread(self._store.free_bytes, tier)
            for request_id in written:  # it was measured with the rest
                self._promised[tier].pop(request_id, None)

    def _fail(self, request_id: str, error: ErrorInfo) -> None:
        """It stays on its worker. Who waits for it is told, unless the core knows better."""
        self._post(ev.SuspendFailed(request_id, error))
        if error.code != NotFound.code:
            self._tell(request_id, error)

    def _hold(self, decision: do.HoldRequest) -> None:
        process = self._off(decision.request_id, decision.reason)
        if process.stream.kept is None:
            self._tell(decision.request_id, None)
        else:  # who waits for it hears it when it is on record
            self._table.put_away(decision.request_id)

    def _refuse_hold(self, decision: do.RefuseHold) -> None:
        process = self._table.live[decision.request_id]
        process.is_held = False
        process.phase = Phase.PAUSED
        process.note(f"could not be suspended: {decision.error.message}")
        self._tell(decision.request_id, decision.error)

    def _requeue(self, decision: do.Requeue) -> None:
        self._table.come_back(decision.request_id)
        self._tell(decision.request_id, Conflict("it was resumed meanwhile").to_info())
        self._off(decision.request_id, decision.reason)

    def _off(self, request_id: str, reason: str) -> Process:
        """It is on no worker. What outlives this server is put on record."""
        process = self._table.live[request_id]
        process.phase = Phase.SUSPENDED if process.started_ns else Phase.WAITING
        if process.is_held:
            process.phase = Phase.SUSPENDED
        process.note(reason)
        if process.stream.kept is not None:
            process.is_filed = True
            self._task(self._keep(process))
        return process

    def _drop(self, decision: do.DropSnapshot) -> None:
        self._lose(self._table.live[decision.request_id])

    def _lose(self, process: Process) -> None:
        """Its file is taken from it at once: by the time it is deleted there may be a newer one."""
        ref, process.snapshot = process.snapshot, None
        if ref is not None or process.is_filed:
            self._task(self._forget(process, ref))

    def _spill(self, decision: do.SpillSnapshot) -> None:
        process = self._table.live[decision.request_id]
        process.note(f"its snapshot goes to the disk: {decision.reason}")
        self._task(self._move(process))

    # what workers said

    def on_suspended(self, message: msg.Suspended) -> None:
        """Of a request that has ended meanwhile, the file is nobody's."""
        request_id, snapshot = message.request_id, message.snapshot
        self._written.add(request_id)
        process = self._table.live.get(request_id)
        if process is None:
            if snapshot is not None:
                self._store.discard(snapshot)
            return
        if snapshot is None:
            error = message.error or WorkerLost("no snapshot was written").to_info()
            self._fail(request_id, error)
            return
        if process.snapshot is not None:
            self._store.discard(process.snapshot)
        process.snapshot = snapshot
        spent_s = (time.monotonic_ns() - process.suspending_mono) / 1e9
        self._metrics.suspend_time.labels(process.version.ref).observe(spent_s)
        self._metrics.snapshot_bytes.labels(process.version.ref).observe(snapshot.size_bytes)
        is_on_disk = process.snapshot_tier is Tier.DISK
        self._post(ev.Suspended(request_id, snapshot.size_bytes, is_on_disk))

    def on_forgotten(self, process: Process) -> None:
        """Its worker has aborted it, as it was asked to: it leaves no snapshot."""
        process.is_forgotten = False
        self._post(ev.Suspended(process.request_id, None))

    def on_rejected(self, process: Process, event: Failed) -> bool:
        """Whether a failure is its snapshot's, or of going on from it: then it is not the request's
        end, but computed again, once."""
        is_workers = isinstance(from_info(event.error), WorkerError)
        if process.snapshot is None or process.is_recomputing or not is_workers:
            return False
        why = event.error.message
        _tell_log(logging.WARNING, event.request_id, f"cannot go on from its snapshot: {why}")
        process.is_recomputing = True
        process.note(f"it cannot go on from its snapshot: {event.error.message}")
        self._post(ev.SnapshotLost(event.request_id, event.error.message))
        return True

    def closed(self, process: Process) -> None:
        """It has ended: nothing of it stays."""
        self._written.add(process.request_id)  # or it never will be
        self._tell(process.request_id, NotFound("it ended meanwhile").to_info())
        self._lose(process)

    # files

    async def _keep(self, process: Process) -> None:
        """Durable before the next change of it; what cannot be kept is lost with this server."""
        async with process.filing:
            if process.phase is not Phase.SUSPENDED and process.phase is not Phase.WAITING:
                return  # it runs again, or has ended
            ref = process.snapshot
            try:
                if ref is not None:
                    spilled = await self._store.spill(ref)
                    await self._store.keep(record_of(process, spilled))
                    self._replace(process, ref, spilled)
                else:
                    await self._store.keep(record_of(process, None))
                process.is_recorded = True
            except LLMOSError as error:
                why = f"would not outlive this server: {error}"
                _tell_log(logging.WARNING, process.request_id, why)
            finally:
                self._tell(process.request_id, None)

    async def _move(self, process: Process) -> None:
        ref, failed = process.snapshot, None
        async with process.filing:
            try:
                if ref is not None and process.snapshot is ref:
                    self._replace(process, ref, await self._store.spill(ref))
            except LLMOSError as error:
                failed = error.to_info()
        if ref is None or process.snapshot is ref:
            failed = failed or Conflict("it was resumed meanwhile").to_info()
        self._post(ev.Spilled(process.request_id, failed))

    def _replace(self, process: Process, old: SnapshotRef, new: SnapshotRef) -> None:
        """The copy takes the file's place, unless the request has moved on meanwhile."""
        if new == old:
            return
        is_waiting = process.phase in (Phase.SUSPENDED, Phase.WAITING)
        if process.snapshot is old and is_waiting:
            process.snapshot = new
            self._store.discard(old)
        elif not process.is_recorded:
            self._store.discard(new)

    async def _forget(self, process: Process, ref: SnapshotRef | None) -> None:
        """The record first: it must not name a file that is gone."""
        async with process.filing:
            if process.is_filed:  # on record, or about to be when this was asked for
                process.is_recorded = False
                await self._store.forget(process.request_id)
            if ref is not None:
                self._store.discard(ref)

    # life

    async def settle(self) -> None:
        """Until what was begun is on disk."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_complain)


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a snapshot could not be looked after", exc_info=task.exception())


def record_of(process: Process, snapshot: SnapshotRef | None) -> SuspendedRequest:
    """What the next server of this home needs to go on with it."""
    kept, prepared = process.stream.kept, process.prepared
    assert kept is not None
    assert prepared is not None
    return SuspendedRequest(
        request_id=process.request_id,
        principal=process.principal,
        model_id=process.version.model_id,
        model=process.version.ref,
        body=process.body,
        prepared=prepared,
        service_class=process.service_class,
        nice=process.nice,
        created_ns=process.created_ns,
        suspended_ns=time.time_ns(),
        is_held=process.is_held,
        generated=process.generated.tobytes(),
        events=kept.tokens(),
        num_events=kept.num_events,
        snapshot=snapshot,
        started_ns=process.started_ns,
        num_preemptions=process.num_preemptions,
        num_suspensions=process.num_suspensions,
        num_recomputed=process.num_recomputed,
        trace_parent=process.trace_parent,
        resubmitted=process.resubmitted,
    )


def _tell_log(level: int, request_id: str, what: str) -> None:
    log.log(level, "%s %s", request_id, what, extra={"request_id": request_id})
