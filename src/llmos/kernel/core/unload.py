"""How a replica leaves: drained of what it runs, then parked or stopped."""

from __future__ import annotations

from llmos.kernel.core import decisions as do
from llmos.kernel.core.queueing import dequeue, is_queued
from llmos.kernel.core.replica import COMING, Replica, ReplicaState
from llmos.kernel.core.request import RequestState
from llmos.kernel.core.state import State
from llmos.kernel.core.suspend import may_suspend, suspend


def stop(state: State, replica: Replica, reason: str) -> None:
    """End the process; the bytes come free when it is gone."""
    if replica.state is not ReplicaState.STOPPING:
        replica.move(ReplicaState.STOPPING, reason)
        state.out.append(do.StopReplica(replica.replica_id, reason))


def drain(
    state: State,
    replica: Replica,
    reason: str,
    *,
    to_park: bool = False,
    by_ns: int | None = None,
    above: int = -1,
) -> None:
    """Nothing new runs on it; it is parked or stopped when what runs has ended.

    What still runs `by_ns` is suspended (None: it is waited for), `above` which class (-1: for an
    equal, in turn).
    """
    if replica.state is ReplicaState.STARTING:
        stop(state, replica, reason)
        return
    if replica.state is not ReplicaState.READY:
        if replica.state in (ReplicaState.PARKED, ReplicaState.UNPARKING):
            stop(state, replica, reason)
        elif not to_park:  # it is on its way to be parked, and is to stop then
            replica.is_to_park = False
        return
    replica.is_to_park, replica.drain_by_ns, replica.drains_for = to_park, by_ns, above
    if replica.is_empty:
        rest(state, replica, reason)
        return
    replica.move(ReplicaState.DRAINING, reason)
    for request_id in replica.parked:  # theirs is this replica: they leave the model's queue
        if is_queued(state, state.requests[request_id]):
            dequeue(state, state.requests[request_id])
    state.dirty[replica.model.model_id] = None


def rest(state: State, replica: Replica, reason: str) -> None:
    """It is empty: it gives back its memory. One that has a successor already is of no more use."""
    others = [r for r in state.replicas_of(replica.model.model_id) if r is not replica]
    if not replica.is_to_park or any(r.state in COMING for r in others):
        stop(state, replica, reason)
    elif replica.state is not ReplicaState.PARKING:
        replica.move(ReplicaState.PARKING, reason)
        state.out.append(do.ParkReplica(replica.replica_id, reason))


def set_alarm(state: State, replica: Replica, due_ns: int, now_ns: int) -> None:
    """To be looked at by then. One alarm is enough: when it rings, the next one is set."""
    if not now_ns < replica.alarm_ns <= due_ns:
        replica.alarm_ns = due_ns
        state.wake_at(due_ns)


def hurry(state: State, replica: Replica, now_ns: int) -> None:
    """Of a draining one: who has no row is suspended, and once its time is over everybody."""
    if replica.drain_by_ns is None:
        return
    is_over = now_ns >= replica.drain_by_ns
    if not is_over:
        state.wake_at(replica.drain_by_ns)
    reason = f"its model gives way: {replica.reason}"
    for request_id in replica.requests:
        request = state.requests[request_id]
        if not (is_over or request_id in replica.parked) or not may_suspend(request, now_ns):
            continue
        request.comes_first = request.state is not RequestState.STALLED
        suspend(state, request, reason, now_ns, is_for_another=True)
