"""Looks into a core's state after a step: memory, and which models have it or wait for it."""

from __future__ import annotations

from collections import Counter

from llmos.kernel.core.jobs import SPARE, SpareState
from llmos.kernel.core.limits import Limits
from llmos.kernel.core.makeroom import RESIDENCY_LOADS
from llmos.kernel.core.replica import HOST, LEAVING, Replica, ReplicaState
from llmos.kernel.core.residency import LOWER_PATIENCE
from llmos.kernel.core.state import ALARM_GRID_NS, State
from llmos.kernel.sim.demand import demand
from llmos.kernel.sim.seen import Host
from llmos.kernel.sim.witness import Witness

_COMING = (ReplicaState.STARTING, ReplicaState.UNPARKING, ReplicaState.READY)


def draining(state: State) -> list[str]:
    """Replicas that take nothing new, and still have what runs on them."""
    return [r.replica_id for r in state.replicas.values() if r.state is ReplicaState.DRAINING]


def check(state: State, witness: Witness, now_ns: int) -> None:
    """Raises Violation."""
    check_ledgers(state, witness)
    _check_models(state, witness, now_ns)
    _check_overdrawn(state, witness)
    for model_id in witness.lacking.keys() - state.lacking.keys():
        del witness.lacking[model_id]
    for model_id in state.lacking:
        _check_lacking(state, witness, model_id, now_ns)
    for replica in state.replicas.values():
        _check_state(replica, witness.hosts[replica.replica_id])
        _check_idle(state, replica, now_ns)
        _check_leave(state, witness, replica, now_ns)
        _check_alarm(state, replica, now_ns)
    witness.unpinned.clear()
    coming = Counter(r.model.model_id for r in state.replicas.values() if r.state in _COMING)
    demand(all(count == 1 for count in coming.values()), "two replicas of one model")


def check_ledgers(state: State, witness: Witness) -> None:
    """Every owner is known, and holds what the witness added up."""
    demand(state.replicas.keys() == witness.hosts.keys(), "replicas differ from those started")
    jobs = {job_id: job.facts.memory_bytes for job_id, job in state.jobs.jobs.items()
            if job.reserved}  # fmt: skip
    if state.jobs.spare is not SpareState.NONE:
        jobs[SPARE] = state.limits.jobs.spare_bytes
    for device, ledger in state.ledgers.items():
        held = witness.tally.held[device] | (jobs if device == HOST else {})
        there = dict(ledger.owners())
        for owner in sorted(held.keys() | there.keys()):
            said, right = there.get(owner), held.get(owner)
            demand(said == right, f"{owner} holds {said} of {device}, and it is {right}")
        demand(ledger.reserved_bytes == sum(held.values()), "the sum of a ledger is wrong")
    for replica in state.replicas.values():
        is_right = replica.reserved_bytes == state.ledger.holds(replica.replica_id)
        demand(is_right, "a replica differs from the ledger")
    held = witness.tally.held[HOST]
    snapshots = sum(size for owner, size in held.items() if owner.startswith("snapshot:"))
    demand(snapshots == state.snapshot_memory_bytes, "snapshots in memory are miscounted")


def _check_overdrawn(state: State, witness: Witness) -> None:
    """Where more is held than there is, nobody is idle who could give some back."""
    is_leaving = any(r.state in LEAVING for r in state.replicas.values())
    is_leaving = is_leaving or any(r.is_spilling for r in state.requests.values())
    # a server that is closing has dropped its pins, and makes room for nobody any more
    is_leaving = is_leaving or (state.draining and not state.requests and not state.pinned)
    for device, held in witness.tally.held.items():
        if is_leaving or witness.tally.free_bytes(device) >= 0:
            continue
        for replica_id in held.keys() & state.replicas.keys():
            replica = state.replicas[replica_id]
            is_kept = replica.model.model_id in state.pinned or not held[replica_id]
            demand(is_kept or not state.is_idle(replica), "overdrawn, and an idle model stays")


def _check_models(state: State, witness: Witness, now_ns: int) -> None:
    """Who is asked for, what failures cost, and who stands in the line for memory."""
    demand(state.draining == witness.is_draining, "it is draining, or is not")
    demand(state.wanted.keys() == witness.wanted, "models asked for differ")
    demand(state.pinned.keys() == witness.pinned.keys(), "pinned models differ")
    for model_id in state.wanted:
        replicas = state.replicas_of(model_id)
        demand(all(r.state is not ReplicaState.READY for r in replicas), "it is there, untold")
    for model_id, blame in witness.blames.items():
        fault = state.faults[model_id]
        said = (fault.num_failures, fault.retry_ns, fault.is_cooling(now_ns))
        is_cooling = blame.is_cooling and now_ns < blame.retry_ns
        demand(said == (blame.num_failures, blame.retry_ns, is_cooling), "failures differ")


def _check_lacking(state: State, witness: Witness, model_id: str, now_ns: int) -> None:
    """Somebody needs it, somebody was told, and somebody looks at it in time."""
    demand(not any(r.state in _COMING for r in state.replicas_of(model_id)), "it does not lack")
    waits = len(state.queue(model_id)) or model_id in state.wanted or model_id in state.pinned
    demand(bool(waits), "memory is kept for what nobody needs")
    due_ns = max(now_ns + state.limits.patience_ns, witness.blames[model_id].retry_ns)
    next_ns = state.next_due_ns()
    is_awaited = next_ns is not None and next_ns <= due_ns + ALARM_GRID_NS
    is_leaving = any(r.state in LEAVING for r in state.replicas.values())
    is_leaving = is_leaving or any(r.is_spilling for r in state.requests.values())
    # a server that is closing has dropped its pins, and makes room for nobody any more
    is_leaving = is_leaving or (state.draining and not state.requests and not state.pinned)
    demand(is_leaving or is_awaited, "nobody looks at who lacks memory")
    told_ns = state.limits.room_timeout_ns + state.limits.patience_ns + 2 * ALARM_GRID_NS
    is_over = now_ns - max(state.lacking[model_id], state.moved_ns) > told_ns
    is_paused = now_ns < witness.blames[model_id].retry_ns + told_ns
    demand(is_leaving or is_paused or not is_over, "it waits for what nobody will give")
    most_ns = bound_ns(state.limits, len(state.models), witness.longest_load_ns)
    is_starved = witness.is_faultless and now_ns - state.lacking[model_id] > most_ns
    demand(not is_starved, "a model starves while others come and go")
    is_pausing = now_ns < witness.blames[model_id].retry_ns + ALARM_GRID_NS
    is_back = any(r.state is ReplicaState.PARKING for r in state.replicas_of(model_id))
    is_told = model_id in witness.lacking
    demand(is_told or is_pausing or is_back, "nobody is told that it waits for memory")


def bound_ns(limits: Limits, num_models: int, load_ns: int) -> int:
    """How long a model may lack room while the others come and go: until anyone in use may go for
    it, and then for each model before it in the line a residency, a turn, and a load or two."""
    residency_ns = max(limits.min_residency_ns, RESIDENCY_LOADS * load_ns)
    each_ns = residency_ns + limits.turn_ns + 2 * load_ns + 4 * ALARM_GRID_NS
    return LOWER_PATIENCE * limits.patience_ns + num_models * each_ns


def _check_state(replica: Replica, host: Host) -> None:
    """Where it is, against what was decided and said."""
    state = replica.state
    demand((state is ReplicaState.STOPPING) == host.is_stopping, "it is to stop, or is not")
    if not host.is_stopping:
        demand((state is ReplicaState.PARKING) == host.is_parking, "it is being parked, or is not")
        demand((state is ReplicaState.PARKED) == host.is_parked, "it is parked, or is not")
        demand((state is ReplicaState.UNPARKING) == host.is_unparking, "it comes back, or not")


def _check_idle(state: State, replica: Replica, now_ns: int) -> None:
    """Nobody keeps an unused replica, unless it is pinned, past its keep-alive.

    A core that is closing has let go of its pins and starts nothing: its kernel ends every process.
    """
    model_id = replica.model.model_id
    if (state.draining and not state.requests) or model_id in state.pinned:
        return
    is_unused = state.is_idle(replica)
    if replica.state is ReplicaState.PARKED:
        is_unused = not len(state.queue(model_id)) and model_id not in state.wanted
    if is_unused:
        kept_ns = now_ns - replica.idle_since_ns
        next_ns = state.next_due_ns()
        demand(next_ns is not None, "no wake-up is planned for an idle replica")
        is_over = kept_ns > replica.keep_alive_ns + ALARM_GRID_NS
        is_next = next_ns is not None and next_ns <= now_ns + ALARM_GRID_NS
        demand(not is_over or is_next, "kept past its keep-alive")


def _check_alarm(state: State, replica: Replica, now_ns: int) -> None:
    """A replica that is drained by some time is looked at then, and nobody stays on it longer, but
    for who cannot be suspended."""
    if replica.state is not ReplicaState.DRAINING or replica.drain_by_ns is None:
        return
    due_ns = replica.drain_by_ns
    there = [state.requests[r] for r in (*replica.running, *replica.parked)]
    for request in there:
        if request.state.value != "stopping":
            due_ns = max(due_ns, request.not_before_ns)
    next_ns = state.next_due_ns()
    demand(
        now_ns < due_ns + ALARM_GRID_NS or all(r.state.value == "stopping" for r in there),
        "it stays on a replica that was to be empty",
    )
    is_awaited = next_ns is not None and next_ns <= due_ns + ALARM_GRID_NS
    demand(is_awaited or now_ns >= due_ns, "nobody looks at a replica that drains")


def _check_leave(state: State, witness: Witness, replica: Replica, now_ns: int) -> None:
    """A model in use that makes room: it is not pinned, it had its time against its equals, and it
    has served somebody since it last made room without having."""
    host, model_id = witness.hosts[replica.replica_id], replica.model.model_id
    if not host.began_draining:
        return
    host.began_draining = False
    is_ordered = model_id in witness.unpinned or not replica.reason.startswith("makes room for")
    demand(model_id not in state.pinned or is_ordered, "a pinned model makes room")
    if is_ordered or "the machine" in replica.reason or "more than was known" in replica.reason:
        return
    if replica.drains_for < 0:
        assert host.ready_ns is not None
        load_ns = host.ready_ns - host.began_ns
        least_ns = max(state.limits.min_residency_ns, RESIDENCY_LOADS * load_ns)
        demand(now_ns - host.ready_ns >= least_ns, "it makes room for an equal before its time")
    if replica.drains_for < 0:
        num = 0 if host.has_made else witness.num_fruitless[model_id] + 1
        witness.num_fruitless[model_id] = num
        is_right = num < 2 or not witness.is_faultless
        demand(is_right, "it made room twice, and served nobody in between")
