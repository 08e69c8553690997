"""Requests: may it enter, when it leaves, and what happens in between."""

from __future__ import annotations

from llmos.abi.events import Aborted, Failed, Terminal
from llmos.errors import (
    CapacityError,
    DeadlineExceeded,
    LLMOSError,
    LoadFailed,
    ModelTooLarge,
    QueueFull,
    ReaderStalled,
    ShuttingDown,
)
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import NS
from llmos.kernel.core.replica import ModelFacts
from llmos.kernel.core.request import Request, RequestState
from llmos.kernel.core.state import State

GIB = 1 << 30


def arrived(state: State, event: ev.Arrived, now_ns: int) -> None:
    """Accept into the queue, or refuse with what the client can do about it."""
    waiting, model = event.waiting, event.model
    if refusal := _refusal(state, model, now_ns):
        state.out.append(do.Refuse(waiting.request_id, refusal.to_info()))
        return
    state.models[model.model_id] = model
    request = Request(waiting, model.model_id, now_ns, event.keep_alive_ns)
    request.reason = f"queued: {len(state.queues[model.model_id])} before it"
    state.requests[waiting.request_id] = request
    state.queues[model.model_id].push(state.policy.key(waiting), waiting.request_id)
    state.num_waiting += 1
    state.dirty[model.model_id] = None
    if waiting.deadline_ns is not None:
        state.wake_at(waiting.deadline_ns)
    state.out.append(do.Accept(waiting.request_id, request.reason))


def _refusal(state: State, model: ModelFacts, now_ns: int) -> LLMOSError | None:
    if state.draining:
        return ShuttingDown("the server is stopping")
    fault = state.faults.get(model.model_id)
    if fault is not None and fault.is_cooling(now_ns):
        cause = fault.error.message if fault.error else "unknown"
        wait_s = (fault.retry_ns - now_ns) / NS
        return LoadFailed(f"{model.ref} could not be loaded: {cause}", retry_after_s=wait_s)
    if too_large := check_size(state, model):
        return too_large
    return _overflow(state, model)


def check_size(state: State, model: ModelFacts) -> CapacityError | None:
    """A model that would not fit an empty machine, with the arithmetic."""
    budget = state.ledger.budget_bytes
    if model.reserve_bytes <= budget:
        return None
    return ModelTooLarge(
        f"{model.ref} needs {model.reserve_bytes / GIB:.2f} GiB, "
        f"the budget for models is {budget / GIB:.2f} GiB"
    )


def _overflow(state: State, model: ModelFacts) -> QueueFull | None:
    limits, queued = state.limits, len(state.queues[model.model_id])
    if queued < limits.max_waiting_per_model and state.num_waiting < limits.max_waiting:
        return None
    slots = sum(r.num_slots for r in state.replicas_of(model.model_id)) or model.num_slots
    wait_s = max(1.0, queued * state.service_ns / slots / NS)
    return QueueFull(
        f"{queued} requests wait for {model.ref} and {state.num_waiting} in all",
        retry_after_s=round(wait_s, 1),
    )


def cancelled(state: State, event: ev.Cancelled, now_ns: int) -> None:
    """Waiting: it ends here. Running: the worker ends it. Already stopping or gone: nothing."""
    request = state.requests.get(event.request_id)
    if request is None or request.state is RequestState.STOPPING:
        return
    if request.state is RequestState.WAITING:
        close(state, event.request_id, Aborted(event.request_id, event.reason), now_ns)
        return
    request.move(RequestState.STOPPING, event.reason)
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


def reader_stalled(state: State, event: ev.ReaderStalled, now_ns: int) -> None:
    """Give up its row, and its life if it stays so for `stall_timeout_ns`."""
    request = state.requests.get(event.request_id)
    if request is None or request.state is not RequestState.RUNNING:
        return
    request.move(RequestState.PAUSED, "the client does not read")
    request.stalled_ns = now_ns
    state.wake_at(now_ns + state.limits.stall_timeout_ns)
    assert request.replica_id is not None
    state.out.append(do.PauseRow(event.request_id, request.replica_id, request.reason))


def reader_resumed(state: State, event: ev.ReaderResumed, now_ns: int) -> None:
    """Give it its row back."""
    request = state.requests.get(event.request_id)
    if request is None or request.state is not RequestState.PAUSED:
        return
    request.move(RequestState.RUNNING, "the client reads again")
    request.stalled_ns = None
    assert request.replica_id is not None
    state.out.append(do.UnpauseRow(event.request_id, request.replica_id, request.reason))


def expire(state: State, now_ns: int) -> None:
    """Deadlines of waiting requests, and readers stalled for too long."""
    for request_id, request in list(state.requests.items()):
        deadline_ns = request.waiting.deadline_ns
        waits = request.state is RequestState.WAITING
        if waits and deadline_ns is not None and deadline_ns <= now_ns:
            late = DeadlineExceeded("the deadline passed while the request waited")
            close(state, request_id, Failed(request_id, late.to_info()), now_ns)
        elif request.stalled_ns is not None and (
            now_ns - request.stalled_ns >= state.limits.stall_timeout_ns
        ):
            _give_up(state, request_id, request, now_ns)


def _give_up(state: State, request_id: str, request: Request, now_ns: int) -> None:
    """End a stalled stream now; the worker frees the row, and nobody waits for its answer."""
    assert request.replica_id is not None
    state.out.append(do.AbortRow(request_id, request.replica_id, "the client does not read"))
    error = ReaderStalled(f"nothing was read for {state.limits.stall_timeout_ns / NS:g} s")
    close(state, request_id, Failed(request_id, error.to_info()), now_ns)


def close(state: State, request_id: str, event: Terminal, now_ns: int) -> None:
    """The one place where a request ends: forget it, free what it held, deliver the event."""
    request = state.requests.pop(request_id)
    state.dirty[request.model_id] = None
    if request.state is RequestState.WAITING:
        state.queues[request.model_id].remove(request_id)
        state.num_waiting -= 1
    if request.replica_id is not None:
        replica = state.replicas[request.replica_id]
        replica.running.discard(request_id)
        replica.idle_since_ns = now_ns
        if request.keep_alive_ns is not None:
            replica.keep_alive_ns = request.keep_alive_ns
    if request.started_ns is not None:
        state.service_ns += 0.1 * (now_ns - request.started_ns - state.service_ns)
    state.out.append(do.Close(request_id, event))
