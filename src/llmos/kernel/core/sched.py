"""Rows: who gets a free one, and who gives one up. The order itself is the policy's."""

from __future__ import annotations

from llmos.kernel.core import decisions as do
from llmos.kernel.core.holdings import forget_kv, has_room_for_kv
from llmos.kernel.core.lifecycle import drop, is_too_late, leave_row
from llmos.kernel.core.queueing import dequeue, enqueue, is_queued
from llmos.kernel.core.replica import Replica, ReplicaState
from llmos.kernel.core.request import ROWLESS, Request, RequestState
from llmos.kernel.core.state import State
from llmos.kernel.core.suspend import may_suspend, suspend


def fill_rows(state: State, replica: Replica, now_ns: int) -> None:
    """Free rows to whoever is next, then rows from those who should give way."""
    if replica.state is ReplicaState.DRAINING:
        _resume_parked(state, replica, now_ns)
        return
    queue = state.queue(replica.model.model_id)
    while len(queue):
        first = _goes_first(state, replica)
        if replica.num_free_slots <= 0 and not _make_way(state, replica, first, now_ns):
            return
        _run_next(state, replica, first, now_ns)


def _run_next(state: State, replica: Replica, first: Request | None, now_ns: int) -> None:
    """`first`, else the head of the queue, runs, or ends if its deadline can no longer be met."""
    if first is not None:
        dequeue(state, first)
        _run(state, replica, first, now_ns)
        return
    waiting = state.queue(replica.model.model_id).pop()
    request = state.requests[waiting.request_id]
    dequeue(state, request, popped=True)
    if is_too_late(request, now_ns):
        enqueue(state, request)  # `close` takes it out of the queue it stands in
        drop(state, request, now_ns)
    else:
        _run(state, replica, request, now_ns)


def _goes_first(state: State, replica: Replica) -> Request | None:
    """Before the policy's own head."""
    return _comes_first(state, replica) or _parked_first(state, replica)


def _comes_first(state: State, replica: Replica) -> Request | None:
    """Who lost its row to a higher class, or to an operator, is next in its own class."""
    model_id = replica.model.model_id
    waiting = state.first.get(model_id)
    if not waiting:
        return None
    head_class = state.queue(model_id).peek().service_class
    if head_class < state.backlogs[model_id].highest():
        return None  # it runs on what its class has earned
    found = (state.requests[request_id] for request_id in waiting)
    return min(
        (r for r in found if r.waiting.service_class == head_class and _may_run(r, replica)),
        key=lambda r: r.waiting.arrival,
        default=None,
    )


def _may_run(request: Request, replica: Replica) -> bool:
    """A parked one only where its KV is."""
    return request.replica_id in (None, replica.replica_id)


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
    request_id, is_new = request.request_id, request.state in ROWLESS
    waited_ms = (now_ns - request.waiting.ready_ns) / 1e6
    row = f"row {len(replica.running) + 1} of {replica.num_slots} after {waited_ms:.0f} ms"
    resumes = request.state is RequestState.SUSPENDED
    request.move(RequestState.RUNNING, f"{row}, {_why_there(replica, request)}", now_ns)
    request.slice_tokens, request.comes_first = 0, False
    request.num_slices += 1
    replica.running[request_id] = None
    if not is_new:
        _unpark(state, replica, request)
        if _takes_back(state, request):
            return
    highest = state.backlogs[request.model_id].highest()
    request.is_on_credit = request.waiting.service_class < highest
    if is_new:
        request.replica_id = replica.replica_id
        request.num_resumes += resumes
        if request.started_ns is None:
            request.started_ns = now_ns
            queue = state.queue(request.model_id)
            queue.charge(request.waiting, request.waiting.prompt_tokens)
        state.out.append(do.Dispatch(request_id, replica.replica_id, request.reason, resumes))
    else:
        state.out.append(do.UnpauseRow(request_id, replica.replica_id, request.reason))


def _unpark(state: State, replica: Replica, request: Request) -> None:
    assert request.replica_id == replica.replica_id, "its KV is elsewhere"
    replica.parked.pop(request.request_id)
    forget_kv(state, request)


def _takes_back(state: State, request: Request) -> bool:
    """Whether it gave way in this very step. Nobody has seen its pause, which is undone: it has
    the row for what it had it for before."""
    last = state.out[-1] if state.out else None
    if not isinstance(last, do.PauseRow) or last.request_id != request.request_id:
        return False
    state.out.pop()
    request.num_preempted -= last.kind is do.Pause.PREEMPTED
    return True


def _why_there(replica: Replica, request: Request) -> str:
    """A model has one replica that takes new requests."""
    if request.state is RequestState.SUSPENDED:
        return "computed again" if request.snapshot_bytes is None else "from its snapshot"
    if request.state is not RequestState.WAITING:
        return "where its KV is"
    if replica.since_ns >= request.arrived_ns and replica.parked_ns:
        return "its replica came back for those who waited"
    if replica.since_ns >= request.arrived_ns:
        return "the replica started for those who waited"
    return "the one replica of its model"


def _make_way(state: State, replica: Replica, first: Request | None, now_ns: int) -> bool:
    """Have the running request that should yield to `first`, else to the head, give up its row, if
    there is one.

    It is parked. Turns among equals fill half of the room for that at most, or a saturated lower
    class would leave a higher one nobody to take a row from; when there is no room at all, a
    higher class has it suspended.
    """
    model_id = replica.model.model_id
    head = first or state.requests[state.queue(model_id).peek().request_id]
    highest = max(int(head.waiting.service_class), state.backlogs[model_id].highest())
    found = _pick_victim(state, replica, head, highest, now_ns)
    if found is None:
        return False
    victim, reason = found
    if victim.waiting.service_class < highest and not victim.is_on_credit:
        victim.num_preempted += 1
        victim.comes_first = True
    if _may_park(state, replica, victim, head):
        leave_row(state, victim, RequestState.PARKED, reason, now_ns)
        victim.comes_back(now_ns)
        enqueue(state, victim)
    else:
        suspend(state, victim, reason, now_ns, is_for_another=True)
    return True


def _pick_victim(
    state: State, replica: Replica, head: Request, highest: int, now_ns: int
) -> tuple[Request, str] | None:
    """The lowest class first, then whose row was taken least often, then the longest slice."""
    queue = state.queue(replica.model.model_id)
    is_tight = head.state in ROWLESS and len(replica.parked) >= state.limits.max_turned
    best: tuple[tuple[int, int, int], Request, str] | None = None
    for request_id in replica.running:
        request = state.requests[request_id]
        is_lower = request.waiting.service_class < highest
        if request.state is not RequestState.RUNNING or (is_tight and not is_lower):
            continue
        has_given = request.num_preempted >= state.limits.max_preemptions
        if is_lower and has_given and not request.is_on_credit:
            continue
        reason = queue.yields(request.waiting, request.slice_tokens)
        if reason is None:
            continue
        may_leave = is_lower and replica.model.snapshots and may_suspend(request, now_ns)
        if not may_leave and not _may_park(state, replica, request, head):
            continue
        rank = (int(request.waiting.service_class), request.num_preempted, -request.slice_tokens)
        if best is None or rank < best[0]:
            best = (rank, request, reason)
    return None if best is None else best[1:]


def _may_park(state: State, replica: Replica, request: Request, head: Request) -> bool:
    """Whether its KV has a place beside the rows; a parked head leaves it its own."""
    if not has_room_for_kv(state, request, replica.model):
        return False
    return head.state not in ROWLESS or len(replica.parked) < state.limits.max_parked


def _resume_parked(state: State, replica: Replica, now_ns: int) -> None:
    """A draining replica runs what it holds to its end, higher classes first, and nothing new."""
    parked = (state.requests[request_id] for request_id in replica.parked)
    for request in sorted(parked, key=lambda r: -r.waiting.service_class):
        if replica.num_free_slots > 0 and request.state is RequestState.PARKED:
            _run(state, replica, request, now_ns)
