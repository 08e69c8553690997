"""Replicas: which models are resident, which make room, and what a death means."""

from __future__ import annotations

from llmos.abi.events import Failed
from llmos.errors import Conflict, ErrorInfo, ModelTooLarge, WorkerLost
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.admission import GIB
from llmos.kernel.core.jobs_room import (
    class_of_need,
    give_up_spare,
    leaving_bytes,
    make_yield,
    plan_yields,
)
from llmos.kernel.core.lifecycle import close
from llmos.kernel.core.memory import plan_room
from llmos.kernel.core.queueing import dequeue, is_queued
from llmos.kernel.core.replica import LEAVING, ModelFacts, Replica, ReplicaState
from llmos.kernel.core.state import State

_COMING = (ReplicaState.STARTING, ReplicaState.READY)


def replica_up(state: State, event: ev.ReplicaUp, now_ns: int) -> None:
    """It serves from now on; its reservation shrinks to what was measured."""
    replica = state.replicas.get(event.replica_id)
    if replica is None or replica.state is not ReplicaState.STARTING:
        return
    replica.move(ReplicaState.READY, "loaded")
    replica.num_slots = event.num_slots
    replica.reserved_bytes = state.ledger.shrink(event.replica_id, event.used_bytes)
    replica.ready_ns = replica.idle_since_ns = now_ns
    state.loads.learn(replica.model, now_ns - replica.since_ns)
    _is_resident(state, replica.model.model_id)
    state.faults[replica.model.model_id].cooling = False
    mark_all(state)  # the bytes that came free may be another model's
    state.dirty[replica.model.model_id] = None  # if all who waited have left, it is idle


def replica_refused(state: State, event: ev.ReplicaRefused, now_ns: int) -> None:
    """The driver cannot load it: everyone who waits for the model hears why.

    Said twice, or of one that is to stop, it is no news: its successor may be fine.
    """
    replica = state.replicas.get(event.replica_id)
    if replica is None or replica.state is not ReplicaState.STARTING:
        return
    model_id = replica.model.model_id
    state.faults[model_id].refused(event.error, now_ns, state.limits)
    _fail_waiting(state, model_id, event.error, now_ns)
    stop(state, replica, f"load failed: {event.error.message}")


def replica_gone(state: State, event: ev.ReplicaGone, now_ns: int) -> None:
    """The process is dead: its streams end, its bytes are free, its model restarts if needed."""
    replica = state.replicas.get(event.replica_id)
    if replica is None:
        return
    asked = replica.state is ReplicaState.STOPPING
    error = event.error or WorkerLost("the worker stopped").to_info()
    for request_id in [*replica.running, *replica.parked]:
        close(state, request_id, Failed(request_id, error), now_ns)
    del state.replicas[event.replica_id]
    state.ledger.release(event.replica_id)
    if not asked:
        _died(state, replica, error, now_ns)
    mark_all(state)


def _died(state: State, replica: Replica, error: ErrorInfo, now_ns: int) -> None:
    model_id = replica.model.model_id
    fault = state.faults[model_id]
    ready_ns = now_ns - replica.ready_ns if replica.ready_ns else 0
    proven = replica.served or ready_ns >= state.limits.healthy_ns
    fault.died(error, proven, now_ns, state.limits)
    state.wake_at(fault.retry_ns)
    if fault.num_failures >= state.limits.max_start_failures:
        fault.cooling = True
        _fail_waiting(state, model_id, error, now_ns)


def _fail_waiting(state: State, model_id: str, error: ErrorInfo, now_ns: int) -> None:
    give_up(state, model_id, error)
    retry_ns = state.faults[model_id].retry_ns
    if retry_ns > now_ns:  # an alarm in the past would be due at once, and again, for ever
        state.wake_at(retry_ns)  # a pinned model is tried again then
    queue = state.queue(model_id)
    while len(queue):
        request_id = queue.peek().request_id
        close(state, request_id, Failed(request_id, error), now_ns)


def model_wanted(state: State, event: ev.ModelWanted, now_ns: int) -> None:
    """Someone asks for residency itself, not for an answer."""
    model_id = event.model.model_id
    state.models[model_id] = event.model
    state.wanted[model_id] = None
    if event.pin:
        state.pinned[model_id] = None
    state.dirty[model_id] = None
    if any(replica.state is ReplicaState.READY for replica in state.replicas_of(model_id)):
        _is_resident(state, model_id)


def _is_resident(state: State, model_id: str) -> None:
    if model_id in state.wanted:
        del state.wanted[model_id]
        state.out.append(do.Resident(model_id, None))


def give_up(state: State, model_id: str, error: ErrorInfo) -> None:
    """Nobody keeps asking for its residency; who did is told why."""
    if model_id in state.wanted:
        del state.wanted[model_id]
        state.out.append(do.Resident(model_id, error))
    if model_id in state.lacking:
        state.dirty[model_id] = None  # else it keeps its place in the line for the next time


def model_unwanted(state: State, event: ev.ModelUnwanted, now_ns: int) -> None:
    """Nobody keeps it resident any more; what runs on it ends first."""
    give_up(state, event.model_id, Conflict("the model was unloaded meanwhile").to_info())
    state.pinned.pop(event.model_id, None)
    for replica in state.replicas_of(event.model_id):
        drain(state, replica, "unloaded on request")


def mark_all(state: State) -> None:
    """Every model that waits for anything is looked at again."""
    state.dirty.update((model_id, None) for model_id, queue in state.queues.items() if len(queue))
    state.dirty.update(state.wanted)
    state.dirty.update(state.pinned)


def stop(state: State, replica: Replica, reason: str) -> None:
    """End the process; the bytes come free when it is gone."""
    if replica.state is not ReplicaState.STOPPING:
        replica.move(ReplicaState.STOPPING, reason)
        state.out.append(do.StopReplica(replica.replica_id, reason))


def drain(state: State, replica: Replica, reason: str) -> None:
    """Nothing new runs on it; it stops when what runs has ended."""
    if replica.state is ReplicaState.STARTING or replica.is_empty:
        stop(state, replica, reason)
    elif replica.state is ReplicaState.READY:
        replica.move(ReplicaState.DRAINING, reason)
        for request_id in replica.parked:  # theirs is this replica: they leave the model's queue
            if is_queued(state, state.requests[request_id]):
                dequeue(state, state.requests[request_id])
        state.dirty[replica.model.model_id] = None


def note_lacking(state: State, model_id: str, now_ns: int) -> None:
    """Put the model in the line for memory if someone needs it and no replica is coming."""
    if is_needed(state, model_id) and not _is_coming(state, model_id):
        state.lacking.setdefault(model_id, now_ns)


def is_needed(state: State, model_id: str) -> bool:
    """Someone waits for it, asked for it, or wants it kept."""
    waited_for = len(state.queue(model_id)) > 0
    return waited_for or model_id in state.wanted or model_id in state.pinned


def _is_coming(state: State, model_id: str) -> bool:
    return any(replica.state in _COMING for replica in state.replicas_of(model_id))


def place(state: State, now_ns: int) -> None:
    """Serve the line for memory, whoever has waited longest first.

    A model that has waited longer than `patience_ns` holds what it needs against those behind it:
    without that, two models that don't fit together evict each other for ever before either
    serves.
    """
    line = sorted(state.lacking, key=lambda m: (state.lacking[m], m))
    claimed_bytes = 0
    for model_id in line:
        model = state.models[model_id]
        if not is_needed(state, model_id) or _is_coming(state, model_id):
            del state.lacking[model_id]
        elif crowded := _crowded_out(state, model):
            del state.lacking[model_id]
            _fail_waiting(state, model_id, crowded.to_info(), now_ns)
        elif now_ns < state.faults[model_id].retry_ns:
            state.wake_at(state.faults[model_id].retry_ns)
        elif state.ledger.free_bytes - claimed_bytes >= model.reserve_bytes:
            del state.lacking[model_id]
            _start(state, model, now_ns)
        else:
            claimed_bytes += _make_room(state, model, claimed_bytes, now_ns)


def _crowded_out(state: State, model: ModelFacts) -> ModelTooLarge | None:
    """Pinned models leave too little for it, however long it waits."""
    pinned = [state.models[m] for m in state.pinned if m != model.model_id]
    left_bytes = state.ledger.budget_bytes - sum(other.reserve_bytes for other in pinned)
    if not pinned or model.reserve_bytes <= left_bytes:
        return None
    names = ", ".join(other.ref for other in pinned)
    return ModelTooLarge(
        f"{model.ref} needs {model.reserve_bytes / GIB:.2f} GiB, and {names} being kept loaded "
        f"leaves {max(0, left_bytes) / GIB:.2f} GiB"
    )


def _start(state: State, model: ModelFacts, now_ns: int) -> None:
    state.num_replicas_made += 1
    replica_id = f"rep_{state.num_replicas_made}"
    state.ledger.reserve(replica_id, model.reserve_bytes)
    state.replicas[replica_id] = Replica(
        replica_id,
        model,
        model.reserve_bytes,
        since_ns=now_ns,
        keep_alive_ns=state.limits.keep_alive_ns,
        num_slots=model.num_slots,
    )
    waiting = len(state.queue(model.model_id))
    reason = f"{waiting} requests wait" if waiting else "wanted"
    state.out.append(do.StartReplica(replica_id, model, reason))


def _make_room(state: State, model: ModelFacts, claimed_bytes: int, now_ns: int) -> int:
    """Stop idle replicas that are not pinned; when those don't do, jobs of a lower class yield, and
    then busy ones drain after a while.

    Bytes of replicas already leaving count as free: waiting for them is cheaper than a victim.
    Returns the bytes the model holds against those behind it in the line.
    """
    give_up_spare(state, f"makes room for {model.ref}")
    free_bytes = state.ledger.free_bytes - claimed_bytes + leaving_bytes(state)
    free_bytes += sum(r.reserved_bytes for r in state.replicas.values() if r.state in LEAVING)
    candidates = [r for r in state.replicas.values() if r.model.model_id not in state.pinned]
    idle = [r for r in candidates if state.is_idle(r)]
    victims = plan_room(model.reserve_bytes, free_bytes, idle)
    if victims is None:
        missing_bytes = model.reserve_bytes - free_bytes - sum(r.reserved_bytes for r in idle)
        jobs = plan_yields(state, missing_bytes, class_of_need(state, model.model_id))
        if jobs is not None:
            victims = idle
            make_yield(state, jobs, model.ref, now_ns)
    patience_ns = state.limits.patience_ns
    is_owed = now_ns - state.lacking[model.model_id] >= patience_ns
    if victims is None and is_owed:
        ripe = [
            r
            for r in candidates
            if r.state is ReplicaState.READY and now_ns - r.ready_ns >= patience_ns
        ]
        victims = plan_room(model.reserve_bytes, free_bytes, ripe)
    for victim in victims or ():
        drain(state, victim, f"makes room for {model.ref}")
    if victims is None:
        state.wake_at(now_ns + patience_ns)
    return model.reserve_bytes if is_owed or victims else 0


def unload_idle(state: State, now_ns: int) -> None:
    """Stop replicas nobody has used for their keep-alive time, and drained ones."""
    for replica in list(state.replicas.values()):
        if replica.state is ReplicaState.DRAINING and replica.is_empty:
            stop(state, replica, replica.reason)
        elif state.is_idle(replica) and replica.model.model_id not in state.pinned:
            due_ns = replica.idle_since_ns + replica.keep_alive_ns
            if due_ns <= now_ns:
                stop(state, replica, f"idle for {replica.keep_alive_ns / 1e9:g} s")
            else:
                state.wake_at(due_ns)
