"""What happens to an accepted request, until the one place where it ends."""

from __future__ import annotations

import heapq

import msgspec

from llmos.abi.events import Aborted, Failed, Finished, Terminal
from llmos.errors import DeadlineExceeded, ReaderStalled
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core import suspend
from llmos.kernel.core.cost import Measured
from llmos.kernel.core.holdings import drop_snapshot, free_all, has_room_for_kv, hold_kv
from llmos.kernel.core.limits import NS
from llmos.kernel.core.queueing import dequeue, enqueue, is_queued, may_queue
from llmos.kernel.core.request import ROWLESS, Request, RequestState
from llmos.kernel.core.state import State

OUTPUT_COST = 2.0
"""A token of the answer counts as two of the prompt (the paper's weights)."""


def cancelled(state: State, event: ev.Cancelled, now_ns: int) -> None:
    """On no worker: it ends here. On one: that ends it. Already stopping or gone: nothing."""
    request = state.requests.get(event.request_id)
    if request is None or request.state is RequestState.STOPPING:
        return
    if request.state in ROWLESS:
        close(state, event.request_id, Aborted(event.request_id, event.reason), now_ns)
        return
    if is_queued(state, request):
        dequeue(state, request)
    request.move(RequestState.STOPPING, event.reason, now_ns)
    assert request.replica_id is not None
    state.out.append(do.AbortRow(event.request_id, request.replica_id, event.reason))


def ended(state: State, event: ev.Ended, now_ns: int) -> None:
    """The worker's last word on it. For a request already gone, nothing."""
    request = state.requests.get(event.request_id)
    if request is None:
        return
    if request.replica_id is not None and not isinstance(event.event, Failed):
        state.replicas[request.replica_id].served = True
    close(state, event.request_id, event.event, now_ns)


def suspended(state: State, event: ev.Suspended, now_ns: int) -> None:
    """Also of one that is being aborted: a worker that has forgotten it will not say so again."""
    request = state.requests.get(event.request_id)
    is_over = request is not None and request.state is RequestState.STOPPING
    if request is not None and is_over and event.size_bytes is None:
        close(state, event.request_id, Aborted(event.request_id, request.reason), now_ns)
    else:
        suspend.suspended(state, event, now_ns)


def snapshot_lost(state: State, event: ev.SnapshotLost, now_ns: int) -> None:
    """Also of one that is being aborted: its worker does not know it, so it may never answer."""
    request = state.requests.get(event.request_id)
    if request is not None and request.state is RequestState.STOPPING:
        close(state, event.request_id, Aborted(event.request_id, request.reason), now_ns)
    else:
        suspend.snapshot_lost(state, event, now_ns)


def progressed(state: State, event: ev.Progressed, now_ns: int) -> None:
    """Charge what was made; let slices end where others wait."""
    replica = state.replicas.get(event.replica_id)
    if replica is None:
        return
    queue, load = state.queue(replica.model.model_id), len(replica.running)
    for request_id, num_tokens in event.tokens:
        request = state.requests.get(request_id)
        if request is None or request.replica_id != event.replica_id:
            continue  # it has ended, or is elsewhere by now
        if request.first_ns is None:
            request.first_ns = now_ns
        if request.snapshot_bytes is not None:
            drop_snapshot(state, request)
        request.num_tokens += num_tokens
        request.slice_tokens += num_tokens
        request.num_steps += 1
        request.load_sum += load
        queue.charge(request.waiting, OUTPUT_COST * num_tokens)
    if len(queue):
        state.dirty[replica.model.model_id] = None


def reniced(state: State, event: ev.Reniced, now_ns: int) -> None:
    """Takes effect at once: a queued request moves, a running one keeps its row until its slice."""
    request = state.requests.get(event.request_id)
    if request is None:
        return
    queued = is_queued(state, request)
    if queued:
        dequeue(state, request)
    old, queue = request.waiting, state.queue(request.model_id)
    queue.leave(old)
    request.waiting = msgspec.structs.replace(
        old,
        nice=old.nice if event.nice is None else event.nice,
        service_class=old.service_class if event.service_class is None else event.service_class,
    )
    queue.join(request.waiting)
    state.jobs.load[old.service_class] -= 1
    state.jobs.load[request.waiting.service_class] += 1
    if queued:
        enqueue(state, request)
    state.dirty[request.model_id] = None


def reader_stalled(state: State, event: ev.ReaderStalled, now_ns: int) -> None:
    """It gives up its row, or its wait for one, and its life if it stays so for
    `stall_timeout_ns`."""
    request = state.requests.get(event.request_id)
    if request is None or request.stalled_ns is not None:
        return
    if request.state in (RequestState.WAITING, RequestState.STOPPING):
        return  # nothing of it is sent yet, or nothing more will be
    if is_queued(state, request):
        dequeue(state, request)
    request.stalled_ns = now_ns
    if request.state is RequestState.RUNNING:
        _give_up_row(state, request, now_ns)
    elif request.state is RequestState.PARKED:
        request.move(RequestState.STALLED, "the client does not read", now_ns)
    state.dirty[request.model_id] = None  # nobody else may wait for it
    state.look_at(event.request_id, now_ns + state.limits.stall_timeout_ns)


def _give_up_row(state: State, request: Request, now_ns: int) -> None:
    """Nobody reads: its KV stays where it is, if there is room for it beside the rows."""
    assert request.replica_id is not None
    reason, model = "the client does not read", state.replicas[request.replica_id].model
    if has_room_for_kv(state, request, model) or not suspend.may_suspend(request, now_ns):
        leave_row(state, request, RequestState.STALLED, reason, now_ns)
    else:
        suspend.suspend(state, request, reason, now_ns)


def reader_resumed(state: State, event: ev.ReaderResumed, now_ns: int) -> None:
    """Back into the queue: its row may be someone else's by now."""
    request = state.requests.get(event.request_id)
    if request is None or request.stalled_ns is None or request.state is RequestState.STOPPING:
        return
    request.stalled_ns = None
    if request.state is RequestState.STALLED:
        request.move(RequestState.PARKED, "the client reads again", now_ns)
    if request.state is not RequestState.SUSPENDING:  # else it comes back when that is over
        request.comes_back(now_ns)
    if may_queue(state, request):
        enqueue(state, request)
    state.dirty[request.model_id] = None


def leave_row(state: State, request: Request, to: RequestState, reason: str, now_ns: int) -> None:
    """From running to parked or stalled: the KV stays where it is."""
    assert request.replica_id is not None
    replica, request_id = state.replicas[request.replica_id], request.waiting.request_id
    request.move(to, reason, now_ns)
    del replica.running[request_id]
    replica.parked[request_id] = None
    hold_kv(state, request, replica)
    state.dirty[request.model_id] = None
    kind = do.Pause.STALLED
    if to is RequestState.PARKED:
        kind = do.Pause.PREEMPTED if request.comes_first else do.Pause.TURN
    state.out.append(do.PauseRow(request_id, request.replica_id, reason, kind))


def expire(state: State, now_ns: int) -> None:
    """Deadlines of queued requests, and readers stalled for too long."""
    while state.due and state.due[0][0] <= now_ns:
        request_id = heapq.heappop(state.due)[1]
        request = state.requests.get(request_id)
        if request is None:
            continue
        if is_too_late(request, now_ns):
            drop(state, request, now_ns)
        elif request.stalled_ns is not None and (
            now_ns - request.stalled_ns >= state.limits.stall_timeout_ns
        ):
            _give_up(state, request_id, request, now_ns)


def is_too_late(request: Request, now_ns: int) -> bool:
    """It has not begun, and need not any more."""
    if request.state is not RequestState.WAITING or request.begin_by_ns is None:
        return False
    return request.begin_by_ns <= now_ns


def drop(state: State, request: Request, now_ns: int) -> None:
    """End what can no longer meet its deadline."""
    assert request.deadline_ns is not None
    request_id, waited_s = request.waiting.request_id, (now_ns - request.arrived_ns) / NS
    left_s, service_s = (request.deadline_ns - now_ns) / NS, request.prediction.service_ns / NS
    if left_s <= 0:
        why = "the deadline passed while the request waited"
    else:
        why = f"the deadline is in {left_s:.2f} s, and the answer takes about {service_s:.2f} s"
    details = {"reason": why, "waited_s": waited_s, "service_s": service_s}
    late = DeadlineExceeded(why, param="llmos.deadline_ms", details=details)
    close(state, request_id, Failed(request_id, late.to_info()), now_ns)


def _give_up(state: State, request_id: str, request: Request, now_ns: int) -> None:
    """End a stalled stream now; the worker frees its KV, and nobody waits for its answer."""
    if request.replica_id is not None:
        state.out.append(do.AbortRow(request_id, request.replica_id, "the client does not read"))
    error = ReaderStalled(f"nothing was read for {state.limits.stall_timeout_ns / NS:g} s")
    close(state, request_id, Failed(request_id, error.to_info()), now_ns)


def close(state: State, request_id: str, event: Terminal, now_ns: int) -> None:
    """The one place where a request ends: forget it, free what it held, deliver the event."""
    request = state.requests.pop(request_id)
    state.dirty[request.model_id] = None
    if is_queued(state, request):
        dequeue(state, request)
    if request.replica_id is not None:
        replica = state.replicas[request.replica_id]
        replica.running.pop(request_id, None)
        replica.parked.pop(request_id, None)
        replica.leaving.pop(request_id, None)
        replica.idle_since_ns = now_ns
        if request.keep_alive_ns is not None:
            replica.keep_alive_ns = request.keep_alive_ns
    free_all(state, request)
    tenant = request.waiting.tenant_id
    state.jobs.load[request.waiting.service_class] -= 1
    state.queue(request.model_id).leave(request.waiting)
    state.open_of_tenant[tenant] -= 1
    if not state.open_of_tenant[tenant]:
        del state.open_of_tenant[tenant]
    state.out.append(do.Close(request_id, event, _account(state, request, event, now_ns)))


def _account(state: State, request: Request, event: Terminal, now_ns: int) -> str:
    """Teach the cost model, and say how right it was."""
    if not isinstance(event, Finished) or request.started_ns is None:
        return ""
    first_ns = request.first_ns or now_ns
    measured = Measured(
        principal_id=request.waiting.principal_id,
        prompt_tokens=request.waiting.prompt_tokens,
        output_tokens=event.usage.completion_tokens,
        prefill_ns=first_ns - request.started_ns,
        decode_ns=max(0, now_ns - first_ns - request.away_ns),
        load=max(1, round(request.load_sum / max(1, request.num_steps))),
    )
    state.costs[request.model_id].learn(request.prediction, measured)
    actual_ns, predicted = measured.prefill_ns + measured.decode_ns, request.prediction
    slices = "1 slice" if request.num_slices == 1 else f"{request.num_slices} slices"
    return (
        f"ran {actual_ns / NS:.2f} s in {slices}, predicted "
        f"{predicted.service_ns / NS:.2f} s; {measured.output_tokens} tokens, predicted "
        f"{predicted.output_tokens:.0f}"
    )
