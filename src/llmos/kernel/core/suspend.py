"""The context switch: a request's state off its worker, and what follows from how that went."""

from __future__ import annotations

from llmos.abi.suspended import Tier
from llmos.errors import ErrorInfo, NotFound
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.holdings import (
    drop_snapshot,
    forget_kv,
    free_snapshot,
    hold_kv,
    hold_snapshot,
    keep_snapshot,
    lose_leaving,
)
from llmos.kernel.core.queueing import dequeue, enqueue, is_queued, may_queue
from llmos.kernel.core.replica import Replica
from llmos.kernel.core.request import ROWLESS, Request, RequestState
from llmos.kernel.core.state import State

MAX_RESUMES = 2
"""Without a token in between: a snapshot over which two workers died is not tried again."""

ON_WORKER = frozenset({RequestState.RUNNING, RequestState.PARKED, RequestState.STALLED})


def suspend(
    state: State, request: Request, reason: str, now_ns: int, *, is_for_another: bool = False
) -> None:
    """Off its worker, from a row or without one. Only for one that is on a worker."""
    replica = _replica(state, request)
    if is_queued(state, request):
        dequeue(state, request)
    if request.state is RequestState.RUNNING:  # paused first: a failure then leaves it paused
        del replica.running[request.request_id]
        pause = do.PauseRow(request.request_id, replica.replica_id, reason, do.Pause.SUSPENDED)
        state.out.append(pause)
    replica.parked.pop(request.request_id, None)
    replica.leaving[request.request_id] = None
    request.move(RequestState.SUSPENDING, reason, now_ns)
    request.num_suspensions += 1
    tier = None  # its driver takes no snapshots
    if replica.model.snapshots:
        # what is to outlive this server is on the disk from the first
        in_memory = not request.survives and hold_snapshot(state, request, replica.model)
        tier = Tier.MEMORY if in_memory else Tier.DISK
    state.dirty[request.model_id] = None
    state.out.append(
        do.SuspendRow(request.request_id, replica.replica_id, reason, tier, is_for_another)
    )


def may_suspend(request: Request, now_ns: int) -> bool:
    """A failed suspension is not tried again at once."""
    return request.state in ON_WORKER and now_ns >= request.not_before_ns


def _replica(state: State, request: Request) -> Replica:
    assert request.replica_id is not None
    return state.replicas[request.replica_id]


def suspended(state: State, event: ev.Suspended, now_ns: int) -> None:
    """Its worker has forgotten it. It waits for a row anywhere, or is held."""
    request = state.requests.get(event.request_id)
    if request is None or request.state is not RequestState.SUSPENDING:
        return  # it ended, or is being aborted: its worker deletes the file
    replica = _replica(state, request)
    del replica.leaving[event.request_id]
    replica.idle_since_ns = now_ns
    if event.size_bytes is None and request.snapshot_bytes is not None:
        drop_snapshot(state, request)
    if event.is_on_disk:
        lose_leaving(state, request)
    keep_snapshot(state, request, event.size_bytes)
    request.num_resumes = 0
    _leave(state, request, request.reason, now_ns)


def _leave(state: State, request: Request, reason: str, now_ns: int) -> None:
    """On no replica from now on."""
    forget_kv(state, request)
    request.move(RequestState.SUSPENDED, reason, now_ns)
    request.replica_id = None
    state.dirty[request.model_id] = None
    request.comes_back(now_ns)
    if request.is_held:
        state.out.append(do.HoldRequest(request.request_id, reason))
        return
    state.out.append(do.Requeue(request.request_id, reason))
    if may_queue(state, request):
        enqueue(state, request)


def suspend_failed(state: State, event: ev.SuspendFailed, now_ns: int) -> None:
    """It is paused on its worker, and goes on there.

    A worker that does not know it had lost it over a broken snapshot: it is computed again.
    """
    request = state.requests.get(event.request_id)
    if request is None or request.state is not RequestState.SUSPENDING:
        return
    lose_leaving(state, request)
    if event.error.code == NotFound.code:
        suspended(state, ev.Suspended(event.request_id, None), now_ns)
        return
    replica = _replica(state, request)
    del replica.leaving[event.request_id]
    replica.parked[event.request_id] = None
    hold_kv(state, request, replica)
    request.not_before_ns = now_ns + state.limits.suspend_retry_ns
    state.wake_at(request.not_before_ns)
    is_stalled = request.stalled_ns is not None
    to = RequestState.STALLED if is_stalled else RequestState.PARKED
    request.move(to, f"could not be suspended: {event.error.message}", now_ns)
    if request.is_held:
        request.is_held = False
        state.out.append(do.RefuseHold(event.request_id, event.error))
    request.comes_back(now_ns)
    if may_queue(state, request):
        enqueue(state, request)
    state.dirty[request.model_id] = None


def snapshot_lost(state: State, event: ev.SnapshotLost, now_ns: int) -> None:
    """The replica could not read it: it is computed again from its tokens, in the row it has."""
    request = state.requests.get(event.request_id)
    if request is None:
        return
    drop_snapshot(state, request)
    reason = f"computed again: {event.reason}"
    if request.state is RequestState.RUNNING:
        assert request.replica_id is not None
        state.out.append(do.Dispatch(event.request_id, request.replica_id, reason, resumes=True))
    elif request.state in ON_WORKER:
        _take_off(state, request)
        _leave(state, request, reason, now_ns)


def _take_off(state: State, request: Request) -> None:
    """Its worker knows nothing of it any more."""
    if is_queued(state, request):
        dequeue(state, request)
    replica = _replica(state, request)
    replica.running.pop(request.request_id, None)
    replica.parked.pop(request.request_id, None)


def survives(request: Request) -> bool:
    """Its worker's death: it has made no token since it was resumed, so its snapshot still holds.

    What was being suspended when its worker died is lost, unless it has an older one.
    """
    on_worker = request.state in ON_WORKER or request.state is RequestState.SUSPENDING
    return on_worker and request.snapshot_bytes is not None and request.num_resumes <= MAX_RESUMES


def outlive(state: State, request: Request, error: ErrorInfo, now_ns: int) -> None:
    """Back to where it was before its worker had it."""
    lose_leaving(state, request)
    _take_off(state, request)
    _replica(state, request).leaving.pop(request.request_id, None)
    _leave(state, request, f"its snapshot outlived the worker: {error.message}", now_ns)


def held(state: State, event: ev.RequestHeld, now_ns: int) -> None:
    """Off the machine until it is released. One that is on no worker only leaves its queue."""
    request = state.requests.get(event.request_id)
    if request is None or request.state is RequestState.STOPPING:
        return
    if request.is_held and request.state not in ROWLESS:
        return  # it is on its way out already
    request.is_held = True
    if request.state in ROWLESS:
        if is_queued(state, request):
            dequeue(state, request)
        request.reason = event.reason
        state.out.append(do.HoldRequest(event.request_id, event.reason))
    elif request.state in ON_WORKER:  # else it is on its way out already
        suspend(state, request, event.reason, now_ns)
    state.dirty[request.model_id] = None


def released(state: State, event: ev.RequestReleased, now_ns: int) -> None:
    """It waits for a row again, first in its class if it had one."""
    request = state.requests.get(event.request_id)
    if request is None or not request.is_held or request.state is RequestState.STOPPING:
        return
    request.is_held, request.reason = False, event.reason
    request.comes_first = request.started_ns is not None
    if request.state not in ROWLESS:
        return  # it is on its way out, and comes back by itself
    if request.started_ns is not None:
        request.comes_back(now_ns)
    state.out.append(do.Requeue(event.request_id, event.reason))
    if may_queue(state, request):
        enqueue(state, request)
    state.dirty[request.model_id] = None


def spilled(state: State, event: ev.Spilled, now_ns: int) -> None:
    """Its bytes of memory are free, unless it could not be, or was resumed meanwhile."""
    request = state.requests.get(event.request_id)
    if request is None or not request.is_spilling:
        return
    request.is_spilling = False
    if event.error is None and request.state is RequestState.SUSPENDED:
        free_snapshot(state, request)
    else:
        request.not_before_ns = now_ns + state.limits.suspend_retry_ns
    state.dirty.update(dict.fromkeys(state.lacking))


def spill(state: State, request: Request, reason: str) -> None:
    """From memory to the disk, while it waits."""
    request.is_spilling = True
    state.out.append(do.SpillSnapshot(request.request_id, reason))


def settle_held(state: State, now_ns: int) -> None:
    """The server stops: whose stream outlives it goes on with the next one, and who is held and
    would be lost with it may end here."""
    for request in list(state.requests.values()):
        if request.survives and not request.is_held:
            held(state, ev.RequestHeld(request.request_id, "the server stops"), now_ns)
        elif request.is_held and not request.survives:
            released(state, ev.RequestReleased(request.request_id, "the server stops"), now_ns)
