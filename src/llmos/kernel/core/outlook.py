"""What a newcomer has before it: who goes first, when a row comes free, and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from llmos.abi.policy import Waiting
from llmos.abi.principal import ServiceClass
from llmos.kernel.core.limits import NS
from llmos.kernel.core.replica import ModelFacts, Replica, ReplicaState
from llmos.kernel.core.request import Request, RequestState
from llmos.kernel.core.state import State


@dataclass(slots=True)
class Outlook:
    """`ahead` counts, by class, who waits and has a row first; `tokens` and `work_ns` are theirs.
    `rows` counts who has one now; `num_free` are to spare, `is_full`: none, or there is no replica.

    `wait_ns` is the predicted wait for a row, `known_ns` without what is only guessed of it: how
    long a model loads that never did.
    """

    ahead: dict[ServiceClass, int] = field(default_factory=dict)
    rows: dict[ServiceClass, int] = field(default_factory=dict)
    is_full: bool = True
    num_free: int = 0
    tokens: int = 0
    work_ns: float = 0.0
    wait_ns: float = 0.0
    known_ns: float = 0.0

    @property
    def num_ahead(self) -> int:
        return sum(self.ahead.values())

    @property
    def wait_s(self) -> float:
        return self.wait_ns / NS


def look(state: State, model: ModelFacts, newcomer: Waiting, now_ns: int) -> Outlook:
    """As of now: who comes later, or is reniced, may change it. O(rows)."""
    found = _ahead(state, model, newcomer)
    ready = ready_replicas(state, model.model_id)
    if ready:
        num_slots = sum(replica.num_slots for replica in ready)
        first_ns = min(_free_ns(state, r, newcomer, found.rows, now_ns) for r in ready)
        found.wait_ns = found.known_ns = first_ns + found.work_ns / num_slots
        found.num_free = sum(max(0, replica.num_free_slots) for replica in ready)
        found.is_full = not found.num_free
        return found
    queued_ns = found.work_ns / model.num_slots
    load_ns = _loading_ns(state, model, now_ns)
    found.wait_ns = load_ns + queued_ns
    found.known_ns = found.wait_ns if state.loads.knows(model.model_id) else queued_ns
    return found


def ready_replicas(state: State, model_id: str) -> list[Replica]:
    """Those that give rows to new requests."""
    return [r for r in state.replicas_of(model_id) if r.state is ReplicaState.READY]


def _ahead(state: State, model: ModelFacts, newcomer: Waiting) -> Outlook:
    """By the policy's own word, class by class."""
    queue, found = state.queue(model.model_id), Outlook()
    for kind, work in state.backlogs[model.model_id].of_class.items():
        if not work.num_requests:
            continue
        share = queue.share_ahead(newcomer, kind)
        if num := round(work.num_requests * share):
            found.ahead[kind] = num
            found.tokens += round(work.tokens * share)
            each_ns, num_turns = work.service_ns / work.num_requests, 0
            if kind == newcomer.service_class:
                num_max, turn_ns = _turns(state, model, newcomer)
                num_turns = min(num, num_max)
                found.work_ns += num_turns * min(each_ns, turn_ns)
            found.work_ns += (num - num_turns) * each_ns
    return found


def _turns(state: State, model: ModelFacts, newcomer: Waiting) -> tuple[int, float]:
    """How many of its class may have a first row for a slice only, and how long that takes, in ns.

    As many as there is room to park those whose rows they take.
    """
    slice_tokens = state.queue(model.model_id).gives_way(newcomer, newcomer)
    if slice_tokens is None:
        return 0, 0.0
    num_parked = sum(len(replica.parked) for replica in ready_replicas(state, model.model_id))
    token_ns = state.costs[model.model_id].token_ns(model.num_slots)
    return max(0, state.limits.max_turned - num_parked), slice_tokens * token_ns


def _free_ns(
    state: State, replica: Replica, newcomer: Waiting, rows: dict[ServiceClass, int], now_ns: int
) -> float:
    """Until the first of a replica's rows is free for a newcomer, or is given up to it.

    Who has the rows is counted into `rows`. Turns among equals have half of the room to park.
    """
    queue, num_parked, limits = (
        state.queue(replica.model.model_id),
        len(replica.parked),
        state.limits,
    )
    has_lower_room, has_room = num_parked < limits.max_parked, num_parked < limits.max_turned
    token_ns = state.costs[replica.model.model_id].token_ns(len(replica.running))
    first_ns = 0.0 if replica.num_free_slots > 0 else math.inf
    for request_id in replica.running:
        request = state.requests[request_id]
        kind = request.waiting.service_class
        rows[kind] = rows.get(kind, 0) + 1
        left_ns = 0.0 if request.state is RequestState.STOPPING else _left_ns(request, now_ns)
        first_ns = min(first_ns, left_ns)
        if kind < newcomer.service_class and request.num_preempted >= limits.max_preemptions:
            continue  # it is left alone
        if has_lower_room if kind < newcomer.service_class else has_room:
            turn = queue.gives_way(request.waiting, newcomer)
            if turn is not None:
                first_ns = min(first_ns, (turn - request.slice_tokens) * token_ns)
    return max(0.0, first_ns)


def _left_ns(request: Request, now_ns: int) -> float:
    """Of a running request, by its prediction; below 0 when that is over."""
    assert request.started_ns is not None
    return request.prediction.service_ns - (now_ns - request.started_ns - request.away_ns)


def _loading_ns(state: State, model: ModelFacts, now_ns: int) -> float:
    """Until a replica is ready: one that loads by now, or one that is still to be started."""
    load_ns = state.loads.predict(model)
    for replica in state.replicas_of(model.model_id):
        if replica.state is ReplicaState.STARTING:
            return max(0.0, load_ns - (now_ns - replica.since_ns))
        if replica.state is ReplicaState.UNPARKING:
            return max(0.0, state.unparks.predict(model) - (now_ns - replica.since_ns))
        if replica.state is ReplicaState.PARKED:
            return state.unparks.predict(model)
    fault = state.faults.get(model.model_id)
    return load_ns + (max(0, fault.retry_ns - now_ns) if fault is not None else 0)


def in_words(outlook: Outlook) -> str:
    """Who is ahead, and who has the rows."""
    words = f"queued behind {outlook.num_ahead}"
    if outlook.num_ahead:
        words += f" ({_by_class(outlook.ahead)}, about {outlook.tokens} tokens)"
    if not outlook.rows and outlook.is_full:
        return f"{words}, no replica is loaded"
    return f"{words}, rows taken by {_by_class(outlook.rows)}" if outlook.is_full else words


def _by_class(counts: dict[ServiceClass, int]) -> str:
    return ", ".join(f"{counts[kind]} {kind.name.lower()}" for kind in sorted(counts, reverse=True))
