"""The kernel's one decision function."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any

from llmos.abi.events import Failed
from llmos.errors import ShuttingDown
from llmos.kernel.core import (
    admission,
    jobs_freeze,
    jobs_life,
    jobs_queue,
    lifecycle,
    replicas,
    residency,
    sched,
    suspend,
    unload,
)
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.replica import Replica, ReplicaState
from llmos.kernel.core.request import ROWLESS
from llmos.kernel.core.state import State


def step(state: State, events: Iterable[ev.CoreEvent], now_ns: int) -> list[do.Decision]:
    """Take in what happened, then decide. `now_ns` never decreases; equal inputs, equal outputs."""
    state.out = []
    for event in events:
        _HANDLERS[type(event)](state, event, now_ns)
    if _timer_due(state, now_ns):
        lifecycle.expire(state, now_ns)
        residency.mark_all(state)
        residency.unload_idle(state, now_ns)
        jobs_life.look(state, now_ns)
    while state.dirty:
        _schedule(state, state.dirty.popitem()[0], now_ns)
        if not state.dirty and state.lacking:
            residency.place(state, now_ns)  # may end requests, which makes models dirty again
    if state.jobs.jobs or state.jobs.is_dirty:
        jobs_freeze.balance(state, now_ns)
        jobs_queue.schedule(state, now_ns)
    return state.out


def _timer_due(state: State, now_ns: int) -> bool:
    due = False
    while state.timers and state.timers[0] <= now_ns:
        state.alarms.discard(heapq.heappop(state.timers))
        due = True
    return due


def _schedule(state: State, model_id: str, now_ns: int) -> None:
    """One model: its queue into rows, its idle replica's alarm, its place in the line."""
    for replica in state.replicas_of(model_id):
        if replica.state in (ReplicaState.READY, ReplicaState.DRAINING):
            sched.fill_rows(state, replica, now_ns)
        if replica.state is ReplicaState.DRAINING:
            unload.hurry(state, replica, now_ns)
        if replica.is_empty:
            _rest(state, replica, now_ns)
    residency.note_lacking(state, model_id, now_ns)


def _rest(state: State, replica: Replica, now_ns: int) -> None:
    """A replica without work: a drained one stops, an idle one sets its alarm."""
    if replica.state is ReplicaState.DRAINING:
        unload.rest(state, replica, replica.reason)
    elif replica.model.model_id in state.pinned:
        return  # an alarm for nothing, and with no keep-alive for ever the same one
    elif state.is_idle(replica):
        replicas.relieve_overdrawn(state, "what takes more than was known", now_ns)
        state.wake_at(now_ns + replica.keep_alive_ns)
    elif residency.is_unused(state, replica):  # parked, and nobody waits for it any more
        state.wake_at(max(now_ns, replica.idle_since_ns + replica.keep_alive_ns))


def _draining(state: State, event: ev.Draining, now_ns: int) -> None:
    state.draining = True
    suspend.settle_held(state, now_ns)
    jobs_life.draining(state, now_ns)


def _closing(state: State, event: ev.Closing, now_ns: int) -> None:
    """Nothing is needed any more, so the deaths that follow start nothing."""
    state.draining = True
    for model_id in list(state.wanted):
        residency.give_up(state, model_id, ShuttingDown("the server is stopping").to_info())
    state.pinned.clear()
    state.pinning.clear()
    state.lacking.clear()
    for request_id in list(state.requests):
        request = state.requests[request_id]
        if request.survives and request.is_held and request.state in ROWLESS:
            continue  # the next server goes on with it
        error = ShuttingDown("the server is stopping").to_info()
        lifecycle.close(state, request_id, Failed(request_id, error), now_ns)
    jobs_life.closing(state)


def _tick(state: State, event: ev.Tick, now_ns: int) -> None:
    """Nothing but the passing of time, which every step looks at."""


_HANDLERS: dict[type, Callable[[State, Any, int], None]] = {
    ev.Arrived: admission.arrived,
    ev.Restored: admission.restored,
    ev.Cancelled: lifecycle.cancelled,
    ev.Ended: lifecycle.ended,
    ev.Progressed: lifecycle.progressed,
    ev.Reniced: lifecycle.reniced,
    ev.RequestHeld: suspend.held,
    ev.RequestReleased: suspend.released,
    ev.Suspended: lifecycle.suspended,
    ev.SuspendFailed: suspend.suspend_failed,
    ev.SnapshotLost: lifecycle.snapshot_lost,
    ev.Spilled: suspend.spilled,
    ev.ReaderStalled: lifecycle.reader_stalled,
    ev.ReaderResumed: lifecycle.reader_resumed,
    ev.ReplicaUp: replicas.replica_up,
    ev.ReplicaRefused: replicas.replica_refused,
    ev.ReplicaGone: replicas.replica_gone,
    ev.ReplicaParked: replicas.replica_parked,
    ev.ReplicaUnparked: replicas.replica_unparked,
    ev.ReplicaMeasured: replicas.replica_measured,
    ev.MemoryMeasured: replicas.memory_measured,
    ev.ModelWanted: residency.model_wanted,
    ev.ModelUnpinned: residency.model_unpinned,
    ev.ModelUnwanted: residency.model_unwanted,
    ev.JobClaimed: jobs_life.claimed,
    ev.JobDropped: jobs_life.dropped,
    ev.JobBegun: jobs_life.begun,
    ev.JobNotBegun: jobs_life.not_begun,
    ev.JobWaits: jobs_life.waits,
    ev.JobTooBig: jobs_life.too_big,
    ev.JobOver: jobs_life.over,
    ev.JobSettled: jobs_life.settled,
    ev.JobCancelled: jobs_life.cancelled,
    ev.JobSuspended: jobs_life.suspended,
    ev.JobResumed: jobs_life.resumed,
    ev.JobReniced: jobs_life.reniced,
    ev.SpareGone: jobs_life.spare_gone,
    ev.Draining: _draining,
    ev.Closing: _closing,
    ev.Tick: _tick,
}
