"""Rows: who gets a free one, and who gives one up. The order itself is the policy's."""

from __future__ import annotations

from llmos.kernel.core import decisions as do
from llmos.kernel.core.lifecycle import drop, is_too_late, leave_row
from llmos.kernel.core.queueing import dequeue, enqueue, is_queued
from llmos.kernel.core.replica import Replica, ReplicaState
from llmos.kernel.core.request import Request, RequestState
from llmos.kernel.core.state import State


def fill_rows(state: State, replica: Replica, now_ns: int) -> None:
    """Free rows to whoever is next, then rows from those who should give way."""
    if replica.state is ReplicaState.DRAINING:
        _resume_parked(state, replica, now_ns)
        return
    queue = state.queue(replica.model.model_id)
    while len(queue) and (replica.num_free_slots > 0 or _make_way(state, replica, now_ns)):
        _run_next(state, replica, now_ns)


def _run_next(state: State, replica: Replica, now_ns: int) -> None:
    """The head of the queue runs, or ends if its deadline can no longer be met."""
    if (parked := _parked_first(state, replica)) is not None:
        dequeue(state, parked)
        _run(state, replica, parked, now_ns)
        return
    waiting = state.queue(replica.model.model_id).pop()
    request = state.requests[waiting.request_id]
    dequeue(state, request, popped=True)
    if is_too_late(request, now_ns):
        enqueue(state, request)  # `close` takes it out of the queue it stands in
        drop(state, request, now_ns)
    else:
        _run(state, replica, request, now_ns)


def _parked_first(state: State, replica: Replica) -> Request | None:
    """The longest ready parked request of the head's class, if more are parked than turns leave.

    Else every pre-emption would leave one more behind new requests of its class, until there is no
    room to pre-empt any more. A lower class's head runs on what it has earned: that is its own.
    """
    model_id = replica.model.model_id
    if len(replica.parked) <= state.limits.max_turned:
        return None
    head_class = state.queue(model_id).peek().service_class
    if head_class < state.backlogs[model_id].highest():
        return None
    parked = (state.requests[request_id] for request_id in replica.parked)
    return min(
        (r for r in parked if is_queued(state, r) and r.waiting.service_class == head_class),
        key=lambda r: (r.waiting.ready_ns, r.waiting.arrival),
        default=None,
    )


def _run(state: State, replica: Replica, request: Request, now_ns: int) -> None:
    request_id, is_new = request.waiting.request_id, request.state is RequestState.WAITING
    waited_ms = (now_ns - request.waiting.ready_ns) / 1e6
    row = f"row {len(replica.running) + 1} of {replica.num_slots} after {waited_ms:.0f} ms"
    request.move(RequestState.RUNNING, f"{row}, {_why_there(replica, request)}", now_ns)
    request.slice_tokens = 0
    request.num_slices += 1
    replica.running[request_id] = None
    if is_new:
        request.replica_id = replica.replica_id
        request.started_ns = now_ns
        queue = state.queue(request.model_id)
        queue.charge(request.waiting, request.waiting.prompt_tokens)
        state.out.append(do.Dispatch(request_id, replica.replica_id, request.reason))
    else:
        assert request.replica_id == replica.replica_id, "its KV is elsewhere"
        replica.parked.pop(request_id)
        last = state.out[-1] if state.out else None
        if isinstance(last, do.PauseRow) and last.request_id == request_id:
            state.out.pop()  # it gave way, and it is its turn again: the worker need not know
        else:
            state.out.append(do.UnpauseRow(request_id, replica.replica_id, request.reason))


def _why_there(replica: Replica, request: Request) -> str:
    """A model has one replica that takes new requests."""
    if request.state is not RequestState.WAITING:
        return "where its KV is"
    if replica.since_ns >= request.arrived_ns:
        return "the replica started for those who waited"
    return "the one replica of its model"


def _make_way(state: State, replica: Replica, now_ns: int) -> bool:
    """Park the running request that should yield to the head, if there is one.

    A new request adds one to the parked. Turns among equals fill half of that room at most, or a
    saturated lower class would leave a higher one nobody to take a row from.
    """
    queue = state.queue(replica.model.model_id)
    head = state.requests[queue.peek().request_id]
    is_new = head.state is RequestState.WAITING
    if is_new and len(replica.parked) >= state.limits.max_parked:
        return False
    is_tight = is_new and len(replica.parked) >= state.limits.max_turned
    running = [state.requests[request_id] for request_id in replica.running]
    if is_tight:
        highest = state.backlogs[replica.model.model_id].highest()
        running = [r for r in running if r.waiting.service_class < highest]
    best: tuple[tuple[int, int], Request, str] | None = None
    for request in running:
        if request.state is not RequestState.RUNNING:
            continue
        reason = queue.yields(request.waiting, request.slice_tokens)
        if reason is not None:
            rank = (request.waiting.service_class, -request.slice_tokens)
            if best is None or rank < best[0]:
                best = (rank, request, reason)
    if best is None:
        return False
    _, victim, reason = best
    leave_row(state, victim, RequestState.PARKED, reason, now_ns)
    victim.comes_back(now_ns)
    enqueue(state, victim)
    return True


def _resume_parked(state: State, replica: Replica, now_ns: int) -> None:
    """A draining replica runs what it holds to its end, oldest first, and nothing new."""
    for request_id in list(replica.parked):
        request = state.requests[request_id]
        if replica.num_free_slots > 0 and request.state is RequestState.PARKED:
            _run(state, replica, request, now_ns)
