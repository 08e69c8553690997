"""Residency: which models are loaded, parked or on their way, and who waits for room."""

from __future__ import annotations

from llmos.abi.events import Failed
from llmos.errors import Conflict, ErrorInfo, ModelTooLarge, OutOfMemory
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.admission import in_gib
from llmos.kernel.core.jobs_room import class_of_need
from llmos.kernel.core.lifecycle import close
from llmos.kernel.core.makeroom import Need, hasten, leaving, make_room, who_keeps
from llmos.kernel.core.replica import COMING, HOST, ModelFacts, Replica, ReplicaState
from llmos.kernel.core.state import State
from llmos.kernel.core.unload import drain, rest, set_alarm, stop

HEAD_START = 2
"""Times its patience that a class goes ahead of the next lower one in the line for memory."""

LOWER_PATIENCE = 10
"""Times its patience that a model waits before one goes for it that higher classes use."""


def model_wanted(state: State, event: ev.ModelWanted, now_ns: int) -> None:
    """Someone asks for residency itself, not for an answer."""
    model_id = event.model.model_id
    state.know(event.model)
    state.wanted[model_id] = None
    if event.is_standing:
        state.pinned[model_id] = None
    elif event.pin:
        state.pinning[model_id] = None
    if event.keep_alive_ns is not None:
        state.keep_alive[model_id] = event.keep_alive_ns
        for replica in state.replicas_of(model_id):
            replica.keep_alive_ns, replica.idle_since_ns = event.keep_alive_ns, now_ns
    state.dirty[model_id] = None
    if any(replica.state is ReplicaState.READY for replica in state.replicas_of(model_id)):
        is_resident(state, model_id)


def model_unpinned(state: State, event: ev.ModelUnpinned, now_ns: int) -> None:
    """From now on it is kept as any other."""
    state.pinning.pop(event.model_id, None)
    if event.model_id in state.pinned:
        del state.pinned[event.model_id]
        for replica in state.replicas_of(event.model_id):
            replica.idle_since_ns = now_ns
        mark_all(state)
        state.dirty[event.model_id] = None  # it may lack room that nobody needs any more


def model_unwanted(state: State, event: ev.ModelUnwanted, now_ns: int) -> None:
    """Nobody keeps it resident any more; what runs on it ends first."""
    give_up(state, event.model_id, Conflict("the model was unloaded meanwhile").to_info())
    state.pinned.pop(event.model_id, None)
    for replica in state.replicas_of(event.model_id):
        drain(state, replica, "unloaded on request")


def is_resident(state: State, model_id: str) -> None:
    """Who asked for it is told; who wanted it kept has it so."""
    if model_id in state.pinning:
        del state.pinning[model_id]
        state.pinned[model_id] = None
    if model_id in state.wanted:
        del state.wanted[model_id]
        state.out.append(do.Resident(model_id, None))


def give_up(state: State, model_id: str, error: ErrorInfo) -> None:
    """Nobody keeps asking for its residency; who did is told why."""
    state.pinning.pop(model_id, None)
    if model_id in state.wanted:
        del state.wanted[model_id]
        state.out.append(do.Resident(model_id, error))
    if model_id in state.lacking:
        state.dirty[model_id] = None  # else it keeps its place in the line for the next time


def fail_waiting(state: State, model_id: str, error: ErrorInfo, now_ns: int) -> None:
    """Everyone who waits for the model hears why it will not come."""
    give_up(state, model_id, error)
    retry_ns = state.faults[model_id].retry_ns
    if retry_ns > now_ns:  # an alarm in the past would be due at once, and again, for ever
        state.wake_at(retry_ns)  # a pinned model is tried again then
    queue = state.queue(model_id)
    while len(queue):
        request_id = queue.peek().request_id
        close(state, request_id, Failed(request_id, error), now_ns)


def mark_all(state: State) -> None:
    """Every model that waits for anything is looked at again."""
    state.dirty.update((model_id, None) for model_id, queue in state.queues.items() if len(queue))
    state.dirty.update(state.wanted)
    state.dirty.update(state.pinned)


def note_lacking(state: State, model_id: str, now_ns: int) -> None:
    """Put the model in the line for memory if someone needs it and no replica is coming."""
    if is_needed(state, model_id) and not _is_coming(state, model_id):
        state.lacking.setdefault(model_id, now_ns)


def is_needed(state: State, model_id: str) -> bool:
    """Someone waits for it, asked for it, or wants it kept."""
    waited_for = len(state.queue(model_id)) > 0
    return waited_for or model_id in state.wanted or model_id in state.pinned


def _is_coming(state: State, model_id: str) -> bool:
    return any(replica.state in COMING for replica in state.replicas_of(model_id))


def place(state: State, now_ns: int) -> None:
    """Serve the line for memory: whoever has waited longest first, a higher class a little sooner.

    A model that has waited longer than `patience_ns` holds what it needs against those behind it:
    without that, two models that don't fit together evict each other for ever before either
    serves.
    """
    claimed = dict.fromkeys(state.ledgers, 0)
    for model_id in sorted(state.lacking, key=lambda m: (_since_ns(state, m), m)):
        if not is_needed(state, model_id) or _is_coming(state, model_id):
            _leave_line(state, model_id)
        elif crowded := _crowded_out(state, state.models[model_id]):
            _leave_line(state, model_id)
            fail_waiting(state, model_id, crowded.to_info(), now_ns)
        elif now_ns < state.faults[model_id].retry_ns:
            state.wake_at(state.faults[model_id].retry_ns)
        else:
            for device, size in _bring(state, model_id, claimed, now_ns).items():
                claimed[device] += size


def _since_ns(state: State, model_id: str) -> int:
    head_start_ns = HEAD_START * state.limits.patience_ns
    return state.lacking[model_id] - max(0, class_of_need(state, model_id)) * head_start_ns


def _leave_line(state: State, model_id: str) -> None:
    del state.lacking[model_id]
    state.lack_reason.pop(model_id, None)


def _crowded_out(state: State, model: ModelFacts) -> ModelTooLarge | None:
    """Pinned models leave too little for it, however long it waits."""
    pinned = [state.models[m] for m in state.pinned if m != model.model_id]
    for device, size in state.needs(model).items():
        budget = state.ledgers[device].budget_bytes
        left = budget - sum(state.needs(other).get(device, 0) for other in pinned)
        if pinned and size > left:
            names = ", ".join(other.ref for other in pinned)
            return ModelTooLarge(
                f"{model.ref} needs {in_gib(size)}, and {names} being kept loaded leaves "
                f"{in_gib(max(0, left))}"
            )
    return None


def _bring(state: State, model_id: str, claimed: dict[str, int], now_ns: int) -> dict[str, int]:
    """Start it, or have its parked replica come back, or make room for that.

    Returns the bytes by device that it holds against those behind it in the line.
    """
    model = state.models[model_id]
    parked = next((r for r in state.replicas_of(model_id) if r.state is ReplicaState.PARKED), None)
    if any(r.state is ReplicaState.PARKING for r in state.replicas_of(model_id)):
        return {}  # soon it is parked, and comes back
    needs = state.needs(model)
    if parked is not None:
        held = {d: state.ledgers[d].holds(parked.replica_id) for d in needs}
        needs = {d: max(0, size - held[d]) for d, size in needs.items()}
    short = {d: size - state.free_bytes(d) + claimed[d] for d, size in needs.items()}
    if all(size <= 0 for size in short.values()):
        _leave_line(state, model_id)
        if parked is None:
            _start(state, model, now_ns)
        else:
            _unpark(state, parked, now_ns)
        return {}
    return needs if _make_room(state, model, short, now_ns) else {}


def _start(state: State, model: ModelFacts, now_ns: int) -> None:
    state.num_replicas_made += 1
    replica_id = f"rep_{state.num_replicas_made}"
    needs = state.needs(model)
    state.moved_ns = now_ns
    state.reserve(replica_id, needs)
    state.replicas[replica_id] = Replica(
        replica_id,
        model,
        needs[HOST],
        since_ns=now_ns,
        keep_alive_ns=state.keep_alive.get(model.model_id, state.limits.keep_alive_ns),
        num_slots=model.num_slots,
    )
    state.out.append(do.StartReplica(replica_id, model, _why_wanted(state, model.model_id)))


def _unpark(state: State, replica: Replica, now_ns: int) -> None:
    needs = state.needs(replica.model)
    held = {d: max(size, state.ledgers[d].holds(replica.replica_id)) for d, size in needs.items()}
    state.moved_ns = now_ns
    state.grow(replica.replica_id, held)
    replica.reserved_bytes, replica.since_ns = held[HOST], now_ns
    replica.is_to_park, replica.drain_by_ns, replica.drains_for = False, None, -1
    reason = _why_wanted(state, replica.model.model_id)
    replica.move(ReplicaState.UNPARKING, reason)
    state.out.append(do.UnparkReplica(replica.replica_id, reason))


def _why_wanted(state: State, model_id: str) -> str:
    waiting = len(state.queue(model_id))
    return f"{waiting} requests wait" if waiting else "wanted"


def _make_room(state: State, model: ModelFacts, short: dict[str, int], now_ns: int) -> bool:
    """Whether it holds what it needs against those behind it: room is being made, or owed."""
    model_id, patience_ns = model.model_id, state.limits.patience_ns
    waited_ns = now_ns - state.lacking[model_id]
    need = Need(
        model.ref,
        class_of_need(state, model_id),
        model_id,
        horizon_ns=int(state.loads.predict(model)) + state.limits.min_residency_ns,
        busy_below=_busy_below(state, model_id, waited_ns),
    )
    coming = leaving(state)
    missing = {d: size - coming[d] for d, size in short.items() if size > coming[d]}
    if not missing:
        hasten(state, need, now_ns)
        why = "waits for memory that is being given back"
    elif make_room(state, missing, need, now_ns):
        why = "waits for others to make room"
    else:
        size, device = max((size, device) for device, size in missing.items())
        keepers = who_keeps(state, need, now_ns) or "others on this machine have it"
        why = f"{model.ref} lacks {in_gib(size)} of {device} memory: {keepers}"
    state.wake_at(now_ns + patience_ns)
    if _is_stuck(state, model_id, now_ns):
        _give_up_waiting(state, model, why, now_ns)
        return False
    _tell(state, model, why)
    return not missing or waited_ns >= patience_ns or why.startswith("waits")


def _is_stuck(state: State, model_id: str, now_ns: int) -> bool:
    """It has waited for long, and so long nothing was given to anyone, or taken."""
    since_ns = max(state.lacking[model_id], state.moved_ns)
    return now_ns - since_ns >= state.limits.room_timeout_ns


def _busy_below(state: State, model_id: str, waited_ns: int) -> int:
    """Models in use by lower classes than this may go for it, once they have had their time."""
    patience_ns = state.limits.patience_ns
    if waited_ns < patience_ns:
        return -1
    own = class_of_need(state, model_id) + 1
    return own if waited_ns < LOWER_PATIENCE * patience_ns else max(own, 1 << 8)


def _give_up_waiting(state: State, model: ModelFacts, why: str, now_ns: int) -> None:
    timeout_s = state.limits.room_timeout_ns / 1e9
    error = OutOfMemory(f"no room was made in {timeout_s:g} s: {why}", retry_after_s=timeout_s)
    _leave_line(state, model.model_id)
    fail_waiting(state, model.model_id, error.to_info(), now_ns)


def _tell(state: State, model: ModelFacts, why: str) -> None:
    """Once for each new reason."""
    if state.lack_reason.get(model.model_id) != why:
        state.lack_reason[model.model_id] = why
        state.out.append(do.LacksRoom(model.model_id, why))


def unload_idle(state: State, now_ns: int) -> None:
    """Stop replicas nobody has used for their keep-alive time; hurry those that are drained."""
    for replica in list(state.replicas.values()):
        if replica.state is ReplicaState.DRAINING:
            state.dirty[replica.model.model_id] = None  # its time may be over
            if replica.is_empty:
                rest(state, replica, replica.reason)
        elif is_unused(state, replica) and replica.model.model_id not in state.pinned:
            due_ns = replica.idle_since_ns + replica.keep_alive_ns
            if due_ns <= now_ns:
                stop(state, replica, f"idle for {replica.keep_alive_ns / 1e9:g} s")
            else:
                set_alarm(state, replica, due_ns, now_ns)


def is_unused(state: State, replica: Replica) -> bool:
    """Nobody uses it, or waits for its model."""
    if replica.state is ReplicaState.PARKED:
        return not is_needed(state, replica.model.model_id)
    return state.is_idle(replica)
