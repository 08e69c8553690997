"""Into a model's queue and out of it, with the books on what waits there."""

from __future__ import annotations

from llmos.kernel.core.replica import ReplicaState
from llmos.kernel.core.request import QUEUED, Request, RequestState
from llmos.kernel.core.state import State


def enqueue(state: State, request: Request) -> None:
    """Into its model's queue, new or back from a row."""
    waiting, model_id = request.waiting, request.model_id
    state.queue(model_id).push(waiting)
    state.num_waiting += 1
    request.queued_ns, request.queued_tokens = _work(state, request)
    backlog = state.backlogs[model_id]
    backlog.add(waiting.service_class, request.queued_ns, request.queued_tokens)
    if request.comes_first:
        state.first.setdefault(model_id, {})[waiting.request_id] = None
    if request.state is RequestState.WAITING:
        for fresh in (backlog.fresh, state.fresh):
            fresh[waiting.service_class][waiting.request_id] = None
    state.dirty[model_id] = None


def dequeue(state: State, request: Request, *, popped: bool = False) -> None:
    """Out of it again. `popped`: the policy has let go of it already."""
    waiting, model_id = request.waiting, request.model_id
    if not popped:
        state.queue(model_id).remove(waiting.request_id)
    state.num_waiting -= 1
    if request.comes_first:
        state.first[model_id].pop(waiting.request_id, None)
    backlog = state.backlogs[model_id]
    backlog.remove(waiting.service_class, request.queued_ns, request.queued_tokens)
    for fresh in (backlog.fresh, state.fresh):
        fresh[waiting.service_class].pop(waiting.request_id, None)


def may_queue(state: State, request: Request) -> bool:
    """Whether it should stand in its model's queue: it wants a row, and may have one.

    Parked ones of a replica that takes nothing new wait for a row of it, in no queue.
    """
    if request.is_held or request.stalled_ns is not None or request.state not in QUEUED:
        return False
    replica = state.replicas.get(request.replica_id or "")
    return replica is None or replica.state is ReplicaState.READY


def is_queued(state: State, request: Request) -> bool:
    """Whether it stands in its model's queue: waiting, or parked on a replica that stays."""
    return request.waiting.request_id in state.queue(request.model_id)


def _work(state: State, request: Request) -> tuple[float, int]:
    """Predicted ns and tokens: the whole of a new request, what is left of one that has run.

    It may make more tokens than was predicted: one more is always to come.
    """
    waiting, whole_ns = request.waiting, request.prediction.service_ns
    if request.state is RequestState.WAITING:
        return whole_ns, waiting.prompt_tokens + waiting.expected_tokens
    num_left = max(1, waiting.expected_tokens - request.num_tokens)
    if not request.num_tokens:  # its prompt is not read to the end, for all we know
        return whole_ns, num_left
    load = max(1, round(request.load_sum / max(1, request.num_steps)))
    return min(whole_ns, num_left * state.costs[request.model_id].token_ns(load)), num_left
