"""What workers say of their replicas: up, parked, refused, gone, and how much they hold."""

from __future__ import annotations

from llmos.abi.events import Failed
from llmos.errors import ErrorInfo, OutOfMemory, WorkerLost
from llmos.kernel.core import events as ev
from llmos.kernel.core.admission import check_size
from llmos.kernel.core.lifecycle import close
from llmos.kernel.core.makeroom import ABOVE_ALL, Need, leaving, make_room
from llmos.kernel.core.replica import HOST, Replica, ReplicaState
from llmos.kernel.core.residency import fail_waiting, is_resident, mark_all
from llmos.kernel.core.state import State
from llmos.kernel.core.suspend import outlive, survives
from llmos.kernel.core.unload import set_alarm, stop

MARGIN = 50
"""One part in so many is added to what was measured, for what the next load takes more."""

SHORT_TIMES = 3
"""Measurements in a row by which the machine lacks memory before a model in use gives some back."""


def replica_up(state: State, event: ev.ReplicaUp, now_ns: int) -> None:
    """It serves from now on; its reservation becomes what was measured."""
    replica = state.replicas.get(event.replica_id)
    if replica is None or replica.state is not ReplicaState.STARTING:
        return
    replica.move(ReplicaState.READY, "loaded")
    replica.num_slots = event.num_slots
    state.loads.learn(replica.model, now_ns - replica.since_ns)
    used = _by_device(replica, event.used_bytes, event.device_used_bytes)
    peak = {**used, HOST: max(event.used_bytes, event.peak_bytes)}
    if state.is_known(replica.model):
        state.learned[replica.model.model_id] = _learn(replica.model.needs, peak)
    state.faults[replica.model.model_id].cooling = False
    _bind(state, replica, used, now_ns)
    if too_large := check_size(state, replica.model):  # it takes more than was thought
        fail_waiting(state, replica.model.model_id, too_large.to_info(), now_ns)
        stop(state, replica, too_large.message)
        return
    _serve(state, replica, now_ns)


def replica_unparked(state: State, event: ev.ReplicaUnparked, now_ns: int) -> None:
    """As `replica_up`."""
    replica = state.replicas.get(event.replica_id)
    if replica is None or replica.state is not ReplicaState.UNPARKING:
        return
    replica.move(ReplicaState.READY, "back from being parked")
    state.unparks.learn(replica.model, now_ns - replica.since_ns)
    used = _by_device(replica, event.used_bytes, event.device_used_bytes)
    _bind(state, replica, used, now_ns)
    _serve(state, replica, now_ns)


def replica_parked(state: State, event: ev.ReplicaParked, now_ns: int) -> None:
    """Its bytes are free but for what its process keeps. One that could not serves as before."""
    replica = state.replicas.get(event.replica_id)
    if replica is None or replica.state is not ReplicaState.PARKING:
        return
    if event.error is not None:
        replica.move(ReplicaState.READY, f"could not be parked: {event.error.message}")
        replica.is_to_park, replica.num_unparked = False, replica.num_unparked + 1
        _serve(state, replica, now_ns)
        return
    replica.move(ReplicaState.PARKED, replica.reason)
    replica.parked_ns, replica.num_unparked = now_ns, 0
    if state.is_known(replica.model):
        state.parked[replica.model.model_id] = event.used_bytes
    used = _by_device(replica, event.used_bytes, event.device_used_bytes)
    _bind(state, replica, used, now_ns)
    mark_all(state)
    if not replica.is_to_park:  # it was unloaded meanwhile
        stop(state, replica, "unloaded on request")
    else:
        set_alarm(state, replica, replica.idle_since_ns + replica.keep_alive_ns, now_ns)


def replica_measured(state: State, event: ev.ReplicaMeasured, now_ns: int) -> None:
    """It holds more than was reserved for it: so does the next one of its model."""
    replica = state.replicas.get(event.replica_id)
    if replica is None or replica.state not in (ReplicaState.READY, ReplicaState.DRAINING):
        return
    used = _by_device(replica, event.used_bytes, event.device_used_bytes)
    known = state.needs(replica.model)
    learned = _learn(replica.model.needs, used)
    if state.is_known(replica.model):
        state.learned[replica.model.model_id] = {
            d: max(known.get(d, 0), size) for d, size in learned.items()
        }
    more = {d: max(s, state.ledgers[d].holds(event.replica_id)) for d, s in used.items()}
    _bind(state, replica, more, now_ns)


def _learn(estimate: dict[str, int], measured: dict[str, int]) -> dict[str, int]:
    """With a margin, which alone does not exceed the estimate: that was an upper bound."""
    return {
        device: max(size, min(size + size // MARGIN, estimate.get(device, 0)))
        for device, size in measured.items()
    }


def _by_device(replica: Replica, host_bytes: int, device_bytes: int) -> dict[str, int]:
    device = replica.model.device
    return {HOST: host_bytes} if device == HOST else {HOST: host_bytes, device: device_bytes}


def _bind(state: State, replica: Replica, used: dict[str, int], now_ns: int) -> None:
    """What it holds is what was measured, be it less or more than was reserved."""
    for device, size in used.items():
        if replica.replica_id in state.ledgers[device].owners():
            state.resize(replica.replica_id, device, size)
    replica.reserved_bytes = state.ledger.holds(replica.replica_id)
    relieve_overdrawn(state, f"{replica.model.ref}, which takes more than was known", now_ns)


def _serve(state: State, replica: Replica, now_ns: int) -> None:
    replica.load_ns = now_ns - replica.since_ns
    replica.ready_ns = replica.idle_since_ns = now_ns
    is_resident(state, replica.model.model_id)
    mark_all(state)  # the bytes that came free may be another model's
    state.dirty[replica.model.model_id] = None  # if all who waited have left, it is idle


def replica_refused(state: State, event: ev.ReplicaRefused, now_ns: int) -> None:
    """The driver cannot load it: everyone who waits for the model hears why.

    Said twice, or of one that is to stop, it is no news: its successor may be fine. One that cannot
    come back from being parked is replaced.
    """
    replica = state.replicas.get(event.replica_id)
    if replica is None:
        return
    model_id = replica.model.model_id
    if replica.state is ReplicaState.UNPARKING:
        stop(state, replica, f"could not come back: {event.error.message}")
        state.dirty[model_id] = None
    elif replica.state is ReplicaState.STARTING:
        state.faults[model_id].refused(event.error, now_ns, state.limits)
        fail_waiting(state, model_id, event.error, now_ns)
        stop(state, replica, f"load failed: {event.error.message}")


def replica_gone(state: State, event: ev.ReplicaGone, now_ns: int) -> None:
    """The process is dead: its streams end, its bytes are free, its model restarts if needed.

    Who has a snapshot that still holds goes on elsewhere.
    """
    replica = state.replicas.get(event.replica_id)
    if replica is None:
        return
    asked = replica.state is ReplicaState.STOPPING
    error = event.error or WorkerLost("the worker stopped").to_info()
    for request_id in replica.requests:
        request = state.requests[request_id]
        if survives(request):
            outlive(state, request, error, now_ns)
        else:
            close(state, request_id, Failed(request_id, error), now_ns)
    del state.replicas[event.replica_id]
    state.release(event.replica_id)
    if not asked:
        _died(state, replica, error, now_ns)
    mark_all(state)


def _died(state: State, replica: Replica, error: ErrorInfo, now_ns: int) -> None:
    model_id = replica.model.model_id
    fault = state.faults[model_id]
    if error.code == OutOfMemory.code and not replica.ready_ns:
        fault.refused(error, now_ns, state.limits)  # at once it would be killed again
        fail_waiting(state, model_id, error, now_ns)
        return
    ready_ns = now_ns - replica.ready_ns if replica.ready_ns else 0
    proven = replica.served or ready_ns >= state.limits.healthy_ns
    fault.died(error, proven, now_ns, state.limits)
    state.wake_at(fault.retry_ns)
    if fault.num_failures >= state.limits.max_start_failures:
        fault.cooling = True
        fail_waiting(state, model_id, error, now_ns)


def memory_measured(state: State, event: ev.MemoryMeasured, now_ns: int) -> None:
    """What is really there. Whoever waits for room is looked at again; where others on the machine
    need what we hold, we give back what costs least."""
    state.headroom = {d: size for d, size in event.headroom.items() if d in state.ledgers}
    state.dirty.update(dict.fromkeys(state.lacking))
    state.jobs.is_dirty = True
    short = {device: -size for device, size in state.headroom.items()}
    is_short = any(size > 0 for size in short.values())
    state.num_short = state.num_short + 1 if is_short else 0
    relieve(state, short, "the machine", now_ns, spares_busy=state.num_short < SHORT_TIMES)


def relieve_overdrawn(state: State, what: str, now_ns: int) -> None:
    """Where more is held than there is: nobody could give anything then, and perhaps can now."""
    short = {device: -ledger.free_bytes for device, ledger in state.ledgers.items()}
    relieve(state, short, what, now_ns)


def relieve(
    state: State, short: dict[str, int], what: str, now_ns: int, *, spares_busy: bool = False
) -> None:
    """Where so many bytes more are in use than there are, by device: as far as anyone can."""
    if all(size <= 0 for size in short.values()):
        return
    coming = leaving(state)
    missing = {d: size - coming[d] for d, size in short.items() if size > coming[d]}
    if missing:
        need = Need(what, ABOVE_ALL, takes_part=True, spares_busy=spares_busy)
        make_room(state, missing, need, now_ns)
