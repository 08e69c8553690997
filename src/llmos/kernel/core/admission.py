"""May a request enter? Every bound is checked here, and every refusal says what to do about it."""

from __future__ import annotations

import math

import msgspec

from llmos.errors import (
    CapacityError,
    DeadlineExceeded,
    LLMOSError,
    LoadFailed,
    ModelTooLarge,
    QueueFull,
    QuotaExceeded,
    ShuttingDown,
)
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.cost import Prediction
from llmos.kernel.core.limits import NS
from llmos.kernel.core.replica import ModelFacts
from llmos.kernel.core.request import Request
from llmos.kernel.core.state import State

GIB = 1 << 30


def arrived(state: State, event: ev.Arrived, now_ns: int) -> None:
    """Accept into the queue, or refuse."""
    model, prediction = event.model, predict(state, event)
    wait_ns = wait_for(state, model, event.waiting.service_class, now_ns)
    refusal = _refusal(state, event, prediction, wait_ns, now_ns)
    if refusal is not None:
        if isinstance(refusal, CapacityError | LoadFailed):
            _explain(state, event, refusal, wait_ns)
        state.out.append(do.Refuse(event.waiting.request_id, refusal.to_info()))
        return
    request = _admit(state, event, prediction, now_ns)
    request.reason = f"queued behind {len(state.queue(model.model_id))}"
    enqueue(state, request)
    if event.deadline_ns is not None:
        state.look_at(request.waiting.request_id, event.deadline_ns)
    state.out.append(
        do.Accept(request.waiting.request_id, request.reason, wait_ns, prediction.service_ns)
    )


def _explain(state: State, event: ev.Arrived, refusal: LLMOSError, wait_ns: float) -> None:
    """What every refusal for want of room says alike, where it says nothing better itself."""
    refusal.details = {
        "position": len(state.queue(event.model.model_id)) + 1,
        "reason": refusal.message,
        "eta_s": round((refusal.retry_after_s or wait_ns / NS), 3),
        **refusal.details,
    }


def predict(state: State, event: ev.Arrived) -> Prediction:
    """At the load the model has now."""
    waiting, model_id = event.waiting, event.model.model_id
    running = sum(len(r.running) for r in state.replicas_of(model_id))
    return state.costs[model_id].predict(
        waiting.principal_id, waiting.prompt_tokens, event.max_tokens, running + 1
    )


def wait_for(state: State, model: ModelFacts, service_class: int, now_ns: int) -> float:
    """Predicted ns until a row comes free for a newcomer of the class.

    The first row to come free, and then the queued work of this class and above over all rows.
    """
    replicas = state.replicas_of(model.model_id)
    if any(r.num_free_slots > 0 for r in replicas) and not len(state.queue(model.model_id)):
        return 0.0
    num_slots = sum(r.num_slots for r in replicas) or model.num_slots
    running = [state.requests[i] for r in replicas for i in r.running if i in state.requests]
    first_ns = min((_left_ns(request, now_ns) for request in running), default=0.0)
    return first_ns + state.backlogs[model.model_id].ahead_ns(service_class) / num_slots


def _left_ns(request: Request, now_ns: int) -> float:
    """Of a running request, by its prediction."""
    assert request.started_ns is not None
    ran_ns = now_ns - request.started_ns - request.away_ns
    return max(0.0, request.prediction.service_ns - ran_ns)


def _admit(state: State, event: ev.Arrived, prediction: Prediction, now_ns: int) -> Request:
    start_by_ns = None
    if event.deadline_ns is not None:
        start_by_ns = event.deadline_ns - int(prediction.service_ns)
    waiting = msgspec.structs.replace(
        event.waiting,
        ready_ns=now_ns,
        expected_tokens=round(prediction.output_tokens),
        start_by_ns=start_by_ns,
    )
    state.models[event.model.model_id] = event.model
    request = Request(
        waiting,
        event.model.model_id,
        now_ns,
        event.max_tokens,
        prediction,
        deadline_ns=event.deadline_ns,
        keep_alive_ns=event.keep_alive_ns,
    )
    state.requests[waiting.request_id] = request
    state.queue(request.model_id).join(waiting)
    tenant = waiting.tenant_id
    state.open_of_tenant[tenant] = state.open_of_tenant.get(tenant, 0) + 1
    state.jobs.load[waiting.service_class] += 1
    return request


def enqueue(state: State, request: Request) -> None:
    """Into its model's queue, new or back from a slice."""
    waiting, model_id = request.waiting, request.model_id
    state.queue(model_id).push(waiting)
    state.num_waiting += 1
    state.backlogs[model_id].add(waiting.service_class, *_work(request))
    state.dirty[model_id] = None


def dequeue(state: State, request: Request, *, popped: bool = False) -> None:
    """Out of it again. `popped`: the policy has let go of it already."""
    waiting, model_id = request.waiting, request.model_id
    if not popped:
        state.queue(model_id).remove(waiting.request_id)
    state.num_waiting -= 1
    state.backlogs[model_id].remove(waiting.service_class, *_work(request))


def is_queued(state: State, request: Request) -> bool:
    """Whether it stands in its model's queue: waiting, or parked on a replica that stays."""
    return request.waiting.request_id in state.queue(request.model_id)


def _work(request: Request) -> tuple[float, int]:
    """Predicted ns and tokens of a whole request: what `Backlog` adds and takes away alike."""
    waiting = request.waiting
    return request.prediction.service_ns, waiting.prompt_tokens + waiting.expected_tokens


def _refusal(
    state: State, event: ev.Arrived, prediction: Prediction, wait_ns: float, now_ns: int
) -> LLMOSError | None:
    model = event.model
    if state.draining:
        return ShuttingDown("the server is stopping")
    fault = state.faults.get(model.model_id)
    if fault is not None and fault.is_cooling(now_ns):
        cause = fault.error.message if fault.error else "unknown"
        wait_s = (fault.retry_ns - now_ns) / NS
        return LoadFailed(f"{model.ref} could not be loaded: {cause}", retry_after_s=wait_s)
    if too_large := check_size(state, model):
        return too_large
    if over_quota := _over_quota(state, event):
        return over_quota
    if full := _full(state, event, wait_ns):
        return full
    return _too_late(event, prediction, wait_ns, now_ns)


def check_size(state: State, model: ModelFacts) -> CapacityError | None:
    """A model that would not fit an empty machine, with the arithmetic."""
    budget = state.ledger.budget_bytes
    if model.reserve_bytes <= budget:
        return None
    return ModelTooLarge(
        f"{model.ref} needs {model.reserve_bytes / GIB:.2f} GiB, "
        f"the budget for models is {budget / GIB:.2f} GiB"
    )


def _over_quota(state: State, event: ev.Arrived) -> QuotaExceeded | None:
    num_open = state.open_of_tenant.get(event.waiting.tenant_id, 0)
    if num_open < state.limits.max_open_per_tenant:
        return None
    return QuotaExceeded(f"this tenant has {num_open} requests open", retry_after_s=1.0)


def _full(state: State, event: ev.Arrived, wait_ns: float) -> QueueFull | None:
    """The lower the class, the earlier its share of a bound is used up."""
    limits, model, waiting = state.limits, event.model, event.waiting
    queued = len(state.queue(model.model_id))
    tokens = state.backlogs[model.model_id].tokens
    share = limits.share(waiting.service_class)
    bounds = (
        (queued, limits.max_waiting_per_model, f"requests wait for {model.ref}"),
        (state.num_waiting, limits.max_waiting, "requests wait in all"),
        (tokens, limits.max_waiting_tokens, f"tokens wait for {model.ref}"),
    )
    for value, bound, what in bounds:
        if value >= math.ceil(bound * share):
            name = waiting.service_class.name.lower()
            return QueueFull(
                f"{value} {what}, as many as class {name} may add to",
                retry_after_s=max(1.0, round(wait_ns / NS, 1)),
                details={"reason": what, "eta_s": round(wait_ns / NS, 3)},
            )
    return None


def _too_late(
    event: ev.Arrived, prediction: Prediction, wait_ns: float, now_ns: int
) -> DeadlineExceeded | None:
    """Refused only when waiting alone would miss it: predictions of service may be wrong."""
    if event.deadline_ns is None or now_ns + wait_ns <= event.deadline_ns:
        return None
    return DeadlineExceeded(
        f"the deadline is in {max(0, event.deadline_ns - now_ns) / NS:.2f} s, "
        f"a row comes free in about {wait_ns / NS:.2f} s",
        param="llmos.deadline_ms",
        details={"wait_s": wait_ns / NS, "service_s": prediction.service_ns / NS},
    )
