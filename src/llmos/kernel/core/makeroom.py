"""Who can give up memory for whom, at what cost, and how what was planned is begun.

Models and jobs share one ledger and one plan: a warm spare, snapshots in memory, models that are
not in use (parked or stopped), jobs of a lower class, models in use by lower classes only, and at
last models in use by anyone, when they have had their time. Pinned models are nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmos.kernel.core.eviction import Eviction, Idle, cost_of, rank_of
from llmos.kernel.core.jobs import SPARE, Ending, Job
from llmos.kernel.core.jobs_leave import send_away
from llmos.kernel.core.jobs_room import (
    class_of_need,
    give_up_spare,
    leaving_bytes,
    spare_is_kept,
    yielding,
)
from llmos.kernel.core.limits import NS
from llmos.kernel.core.replica import HOST, LEAVING, Replica, ReplicaState
from llmos.kernel.core.request import RequestState
from llmos.kernel.core.room import Act, Choice, plan_in_order, plan_room
from llmos.kernel.core.state import State
from llmos.kernel.core.suspend import spill
from llmos.kernel.core.unload import drain, hurry

RESIDENCY_LOADS = 2
"""A model in use stays for so many times its own load: then at most a third of the time goes into
loading, whoever else waits."""

SPILL_NS_PER_BYTE = 2.0
"""To the disk, and back from it."""

CLASS_NS = 60 * NS
"""What the class of a job that is to yield counts as: a lower one goes first."""

RESTART_NS = 2 * NS
"""Of a job's worker, besides what it must do again."""

ABOVE_ALL = 1 << 8
"""Memory that is used already is not argued about: every class makes room for it."""

MAX_UNPARKED = 3
"""A replica that could not be parked so often is stopped instead."""

LEAST_CHANCE = 0.02
"""Of a model being wanted again: nobody knows that it will not be."""


@dataclass(frozen=True, slots=True)
class Need:
    """Who needs room: in words, how urgent it is, and for a model its id.

    `idle_ns`: how long a model must have been unused that goes for it. `busy_below`: models in use
    by lower classes than this may go, once they have had their time. `horizon_ns`: how far ahead a
    victim's use counts. `takes_part`: some of what is missing is better than nothing.
    `spares_busy`: for models in use it is too early.
    """

    what: str
    service_class: int
    owner_id: str = ""
    idle_ns: int = 0
    busy_below: int = -1
    horizon_ns: int = NS
    takes_part: bool = False
    spares_busy: bool = False


def leaving(state: State) -> dict[str, int]:
    """By device, what is on its way back: waiting for it is cheaper than another victim."""
    found = dict.fromkeys(state.ledgers, 0)
    found[HOST] += leaving_bytes(state)
    for replica in state.replicas.values():
        if replica.state in LEAVING:
            to_park = replica.is_to_park and replica.state is not ReplicaState.STOPPING
            for device, size in frees(state, replica, Act.PARK if to_park else Act.STOP).items():
                found[device] += size
    for request in state.requests.values() if state.snapshot_memory_bytes else ():
        if request.is_spilling and request.memory_owner is not None:
            found[HOST] += state.ledger.holds(request.memory_owner)
    return found


def frees(state: State, replica: Replica, act: Act) -> dict[str, int]:
    """By device, what the replica gives back."""
    found = {
        device: ledger.holds(replica.replica_id)
        for device, ledger in state.ledgers.items()
        if ledger.holds(replica.replica_id)
    }
    if act is Act.PARK and HOST in found:
        found[HOST] = max(0, found[HOST] - state.parked_bytes(replica.model))
    return found


def make_room(state: State, missing: Mapping[str, int], need: Need, now_ns: int) -> bool:
    """Plan it and begin it. False: it cannot be made now; nothing is done then."""
    candidates = _candidates(state, need, now_ns)
    if state.limits.eviction is Eviction.COST:
        plan = plan_room(missing, candidates)
    else:
        plan = plan_in_order(missing, [choices[-1] for choices in candidates])
    if plan is None and need.takes_part:
        plan = [choices[0] for choices in candidates]
    if plan is None:
        return False
    state.moved_ns = now_ns
    for choice in plan:
        _begin(state, choice, need, now_ns)
    return True


def _candidates(state: State, need: Need, now_ns: int) -> list[list[Choice]]:
    """Each with its alternatives; in the order in which a rule without costs takes them."""
    found: list[list[Choice]] = []
    if spare_is_kept(state):
        found.append([Choice(SPARE, Act.SPARE, {HOST: state.limits.jobs.spare_bytes}, 1e6)])
    idle = [r for r in state.replicas.values() if _may_go(state, r, need, now_ns)]
    rule, entries = state.limits.eviction, [_idle(state, r, need, now_ns) for r in idle]
    entries.sort(key=lambda entry: rank_of(entry, rule))
    found += [_of_replica(state, state.replicas[entry.owner], entry) for entry in entries]
    found += _snapshots(state, now_ns)
    found += [[_of_job(job, now_ns)] for job in yielding(state, need.service_class)]
    busy = [r for r in state.replicas.values() if _must_go(state, r, need, now_ns)]
    found += [_of_busy(state, replica) for replica in busy]
    return found


def _may_go(state: State, replica: Replica, need: Need, now_ns: int) -> bool:
    """Nobody uses it or waits for it."""
    model_id = replica.model.model_id
    if model_id in state.pinned or model_id == need.owner_id:
        return False
    if replica.state is ReplicaState.PARKED:
        is_unused = not len(state.queue(model_id)) and model_id not in state.wanted
    else:
        is_unused = state.is_idle(replica)
    return is_unused and now_ns - replica.idle_since_ns >= need.idle_ns


def _must_go(state: State, replica: Replica, need: Need, now_ns: int) -> bool:
    """In use by lower classes only, none of whom has given way too often; or by anyone, and it has
    had its time."""
    model_id = replica.model.model_id
    if replica.state is not ReplicaState.READY or state.is_idle(replica) or need.spares_busy:
        return False
    if model_id in state.pinned or model_id == need.owner_id:
        return False
    if _yields_at_once(state, replica, need.service_class):
        return True
    if _class_of_use(state, replica) >= need.busy_below:
        return False
    return now_ns - replica.ready_ns >= residency_ns(state, replica)


def _yields_at_once(state: State, replica: Replica, service_class: int) -> bool:
    if _class_of_use(state, replica) >= service_class:
        return False
    requests = [state.requests[request_id] for request_id in replica.requests]
    most = state.limits.max_preemptions
    return all(r.num_preempted < most and r.state is not RequestState.STOPPING for r in requests)


def _class_of_use(state: State, replica: Replica) -> int:
    """The highest class that is served by it, or waits for its model."""
    own = [int(state.requests[request_id].waiting.service_class) for request_id in replica.requests]
    return max(class_of_need(state, replica.model.model_id), *own, -1)


def residency_ns(state: State, replica: Replica) -> int:
    """What it has in any case while it is in use."""
    return max(state.limits.min_residency_ns, RESIDENCY_LOADS * replica.load_ns)


def who_keeps(state: State, need: Need, now_ns: int) -> str:
    """In words, why those that are loaded make no room for it now."""
    found = []
    for replica in state.replicas.values():
        ref, model_id = replica.model.ref, replica.model.model_id
        if model_id == need.owner_id:
            continue
        if model_id in state.pinned:
            found.append(f"{ref} is pinned")
        elif replica.state in LEAVING:
            found.append(f"{ref} is on its way out")
        elif replica.state is not ReplicaState.READY:
            found.append(f"{ref} is {replica.state}")
        elif _class_of_use(state, replica) > need.service_class:
            found.append(f"{ref} serves a higher class")
        else:
            found.append(f"{ref} is in use, and has its {residency_ns(state, replica) / NS:.1f} s")
    return ", ".join(found)


def _idle(state: State, replica: Replica, need: Need, now_ns: int) -> Idle:
    model = replica.model
    chance = state.demand.probability(model.model_id, need.horizon_ns, now_ns)
    return Idle(
        owner=replica.replica_id,
        size_bytes=sum(frees(state, replica, Act.STOP).values()),
        reload_ns=state.loads.predict(model),
        probability=max(LEAST_CHANCE, chance),
        idle_since_ns=replica.idle_since_ns,
        keep_alive_ns=replica.keep_alive_ns,
    )


def _of_replica(state: State, replica: Replica, idle: Idle) -> list[Choice]:
    """Parked it is soon back and keeps a little, stopped it has to be loaded."""
    cost = cost_of(idle)
    owner, stopped = replica.replica_id, frees(state, replica, Act.STOP)
    if replica.state is ReplicaState.PARKED:
        return [Choice(owner, Act.STOP, stopped, cost)]
    choices = [Choice(owner, Act.STOP, stopped, cost)]
    if _can_park(state, replica):
        unpark_ns = state.unparks.predict(replica.model) * idle.probability
        parked = frees(state, replica, Act.PARK)
        choices.insert(0, Choice(owner, Act.PARK, parked, min(cost, unpark_ns)))
    return choices


def _can_park(state: State, replica: Replica) -> bool:
    if not (state.limits.parking and replica.model.parks):
        return False
    if replica.num_unparked >= MAX_UNPARKED:
        return False
    return sum(frees(state, replica, Act.PARK).values()) > 0


def _of_busy(state: State, replica: Replica) -> list[Choice]:
    """It is wanted for certain, and whoever uses it loses time."""
    work_ns = NS // 50 * len(replica.requests) + NS
    stop_ns = state.loads.predict(replica.model) + work_ns
    owner = replica.replica_id
    choices = [Choice(owner, Act.STOP, frees(state, replica, Act.STOP), stop_ns)]
    if _can_park(state, replica):
        park_ns = min(stop_ns, state.unparks.predict(replica.model) + work_ns)
        parked = frees(state, replica, Act.PARK)
        choices.insert(0, Choice(owner, Act.PARK, parked, park_ns))
    return choices


def _snapshots(state: State, now_ns: int) -> list[list[Choice]]:
    if not state.snapshot_memory_bytes:
        return []
    return [
        [Choice(r.memory_owner, Act.SPILL, {HOST: size}, size * SPILL_NS_PER_BYTE)]
        for r in state.requests.values()
        if r.state is RequestState.SUSPENDED
        and r.memory_owner is not None
        and not r.is_spilling
        and r.not_before_ns <= now_ns
        and (size := state.ledger.holds(r.memory_owner))
    ]


def _of_job(job: Job, now_ns: int) -> Choice:
    """The lowest class goes first, and in it who has run least since its start: so the least is
    undone."""
    cost = int(job.service_class) * CLASS_NS + RESTART_NS + min(now_ns - job.began_ns, CLASS_NS)
    return Choice(job.job_id, Act.YIELD, {HOST: job.facts.memory_bytes}, float(max(0, cost)))


def _begin(state: State, choice: Choice, need: Need, now_ns: int) -> None:
    why = f"makes room for {need.what}"
    if choice.act is Act.SPARE:
        give_up_spare(state, why)
    elif choice.act is Act.YIELD:
        send_away(state, state.jobs.jobs[choice.owner], Ending.ROOM, why, now_ns)
    elif choice.act is Act.SPILL:
        request_id = choice.owner.split(":")[1]
        spill(state, state.requests[request_id], why)
    else:
        give_way(state, state.replicas[choice.owner], choice.act, need, now_ns)


def give_way(state: State, replica: Replica, act: Act, need: Need, now_ns: int) -> None:
    """What it runs is suspended at once for a higher class, after a turn for an equal."""
    above, by_ns = -1, None
    if replica.state is ReplicaState.READY and not replica.is_empty:
        by_ns = now_ns + state.limits.turn_ns
        if _yields_at_once(state, replica, need.service_class):
            by_ns = now_ns
            above = need.service_class if need.service_class < ABOVE_ALL else -1
            for request_id in replica.running if above >= 0 else ():  # once, also if it fails
                state.requests[request_id].num_preempted += 1
    reason = f"makes room for {need.what}"
    drain(state, replica, reason, to_park=act is Act.PARK, by_ns=by_ns, above=above)
    if replica.state is ReplicaState.DRAINING:
        hurry(state, replica, now_ns)


def hasten(state: State, need: Need, now_ns: int) -> None:
    """Models that are drained for nobody's sake, or with time, end in time for this need."""
    for replica in state.replicas.values():
        if replica.state is not ReplicaState.DRAINING or replica.model.model_id == need.owner_id:
            continue
        at_once = _yields_at_once(state, replica, need.service_class)
        by_ns = now_ns + (0 if at_once else state.limits.turn_ns)
        if replica.drain_by_ns is None or by_ns < replica.drain_by_ns:
            replica.drain_by_ns = by_ns
            hurry(state, replica, now_ns)
