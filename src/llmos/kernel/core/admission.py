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
    PayloadTooLarge,
    QueueFull,
    QuotaExceeded,
    ShuttingDown,
)
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.cost import Prediction
from llmos.kernel.core.limits import NS
from llmos.kernel.core.outlook import Outlook, in_words, look
from llmos.kernel.core.queueing import enqueue, may_queue
from llmos.kernel.core.replica import HOST, ModelFacts
from llmos.kernel.core.request import Request, RequestState
from llmos.kernel.core.shed import Lack, pick, shed
from llmos.kernel.core.state import State

GIB = 1 << 30


def in_gib(size_bytes: int) -> str:
    """For people."""
    return f"{size_bytes / GIB:.2f} GiB"


def arrived(state: State, event: ev.Arrived, now_ns: int) -> None:
    """Accept into the queue, or refuse."""
    model, prediction = event.model, predict(state, event)
    outlook = look(state, model, event.waiting, now_ns)
    refusal = _refusal(state, event, prediction, outlook, now_ns)
    place: list[Request] | QueueFull = []
    if refusal is None:
        place = _make_place(state, event, _tokens(event, prediction), outlook)
    if isinstance(place, QueueFull):
        refusal, place = place, []
    if refusal is not None:
        if isinstance(refusal, CapacityError | LoadFailed | PayloadTooLarge):
            _explain(refusal, outlook)
        state.out.append(do.Refuse(event.waiting.request_id, refusal.to_info()))
        return
    request = _admit(state, event, prediction, now_ns)
    request.reason = in_words(outlook)
    enqueue(state, request)
    if request.begin_by_ns is not None:
        state.look_at(request.waiting.request_id, request.begin_by_ns)
    state.out.append(
        do.Accept(
            request.waiting.request_id, request.reason, outlook.wait_ns, prediction.service_ns
        )
    )
    shed(state, place, event.waiting.service_class, now_ns)


def _explain(refusal: LLMOSError, outlook: Outlook) -> None:
    """What every refusal for want of room says alike, where it says nothing better itself.

    `eta_s` None: waiting would not help, or nobody knows for how long.
    """
    eta_s = None
    if not isinstance(refusal, ModelTooLarge | PayloadTooLarge | ShuttingDown):
        eta_s = round(refusal.retry_after_s or outlook.wait_s, 3)
    refusal.details = {
        "position": outlook.num_ahead + 1,
        "reason": refusal.message,
        "eta_s": eta_s,
        **refusal.details,
    }


def _tokens(event: ev.Arrived, prediction: Prediction) -> int:
    """What it counts for in a queue."""
    return event.waiting.prompt_tokens + round(prediction.output_tokens)


def predict(state: State, event: ev.Arrived) -> Prediction:
    """At the load the model has now."""
    waiting, model_id = event.waiting, event.model.model_id
    running = sum(len(r.running) for r in state.replicas_of(model_id))
    return state.costs[model_id].predict(
        waiting.principal_id, waiting.prompt_tokens, event.max_tokens, running + 1
    )


def _admit(state: State, event: ev.Arrived, prediction: Prediction, now_ns: int) -> Request:
    start_by_ns = begin_by_ns = None
    if event.deadline_ns is not None:
        start_by_ns = event.deadline_ns - int(prediction.service_ns)
        least_ns = state.costs[event.model.model_id].at_least_ns(prediction)
        begin_by_ns = event.deadline_ns - int(least_ns)
    waiting = msgspec.structs.replace(
        event.waiting,
        ready_ns=now_ns,
        expected_tokens=round(prediction.output_tokens),
        start_by_ns=start_by_ns,
    )
    state.know(event.model)
    request = Request(
        waiting,
        event.model.model_id,
        now_ns,
        event.max_tokens,
        prediction,
        deadline_ns=event.deadline_ns,
        begin_by_ns=begin_by_ns,
        keep_alive_ns=event.keep_alive_ns,
        survives=event.survives,
    )
    state.requests[waiting.request_id] = request
    state.queue(request.model_id).join(waiting)
    state.demand.arrived(request.model_id, now_ns)
    tenant = waiting.tenant_id
    state.open_of_tenant[tenant] = state.open_of_tenant.get(tenant, 0) + 1
    state.jobs.load[waiting.service_class] += 1
    return request


def restored(state: State, event: ev.Restored, now_ns: int) -> None:
    """An earlier server accepted it: no bound is asked, and nothing is answered."""
    request = _admit(state, event.arrived, predict(state, event.arrived), now_ns)
    request.num_tokens, request.is_held = event.num_tokens, event.is_held
    request.snapshot_bytes, request.reason = event.snapshot_bytes, "kept by an earlier server"
    if event.num_tokens or event.snapshot_bytes is not None:
        request.state = RequestState.SUSPENDED
        request.started_ns = request.left_ns = now_ns
        request.comes_first = True
    if may_queue(state, request):
        enqueue(state, request)
    state.dirty[request.model_id] = None


def _refusal(
    state: State, event: ev.Arrived, prediction: Prediction, outlook: Outlook, now_ns: int
) -> LLMOSError | None:
    model = event.model
    if state.draining:
        return ShuttingDown("the server is stopping")
    fault = state.faults.get(model.model_id)
    if fault is not None and fault.is_cooling(now_ns) and state.is_known(model):
        cause = fault.error.message if fault.error else "unknown"
        wait_s = (fault.retry_ns - now_ns) / NS
        return LoadFailed(f"{model.ref} could not be loaded: {cause}", retry_after_s=wait_s)
    if too_large := check_size(state, model):
        return too_large
    if over_quota := _over_quota(state, event):
        return over_quota
    if too_long := _too_long(state, event, _tokens(event, prediction)):
        return too_long
    return _too_late(state, event, prediction, outlook, now_ns)


def check_size(state: State, model: ModelFacts) -> CapacityError | None:
    """A model that would not fit an empty machine, with the arithmetic and what would fit."""
    for device, size in state.needs(model).items():
        ledger = state.ledgers.get(device)
        budget = 0 if ledger is None else ledger.budget_bytes
        if size > budget:
            why = f" ({model.why})" if model.why else ""
            where = "models" if device == HOST else device
            advice = f"; {model.advice}" if model.advice else ""
            return ModelTooLarge(
                f"{model.ref} needs {in_gib(size)}{why}, the budget for {where} is "
                f"{in_gib(budget)}{advice}",
                details={"need_bytes": size, "budget_bytes": budget, "device": device},
            )
    return None


def _over_quota(state: State, event: ev.Arrived) -> QuotaExceeded | None:
    num_open = state.open_of_tenant.get(event.waiting.tenant_id, 0)
    if num_open < state.limits.max_open_per_tenant:
        return None
    return QuotaExceeded(f"this tenant has {num_open} requests open", retry_after_s=1.0)


def _too_long(state: State, event: ev.Arrived, tokens: int) -> PayloadTooLarge | None:
    """It alone is more than its class may have waiting, so it would never be let in."""
    kind = event.waiting.service_class
    most = math.ceil(state.limits.max_waiting_tokens * state.limits.share(kind))
    if tokens <= most:
        return None
    return PayloadTooLarge(
        f"about {tokens} tokens with its answer, and class {kind.name.lower()} may have {most} "
        f"waiting for {event.model.ref} in all"
    )


def _make_place(
    state: State, event: ev.Arrived, tokens: int, outlook: Outlook
) -> list[Request] | QueueFull:
    """Whom to shed so that every bound holds: mostly nobody. Who need not wait, may come in.

    The lower the class, the earlier its share of a bound is used up.
    """
    model, kind = event.model, event.waiting.service_class
    if outlook.num_free > len(state.queue(model.model_id)):
        return []
    lack = Lack(state, model, kind, tokens, outlook.num_free)
    if not lack.is_any:
        return []
    name, backlog = kind.name.lower(), state.backlogs[model.model_id]
    if lack.num_here > 0:
        value, more, what = len(state.queue(model.model_id)), 1, f"requests wait for {model.ref}"
    elif lack.tokens > 0:
        value, more, what = backlog.tokens, tokens, f"tokens wait for {model.ref}"
    else:
        value, more, what = state.num_waiting, 1, "requests wait in all"
    victims = pick(state, lack, kind)
    if victims is not None:
        return victims
    return QueueFull(
        f"{value} {what}, and class {name} may not add {more} more",
        retry_after_s=max(1.0, round(outlook.wait_s, 1)),
        details={"reason": what, "eta_s": round(outlook.wait_s, 3)},
    )


def _too_late(
    state: State, event: ev.Arrived, prediction: Prediction, outlook: Outlook, now_ns: int
) -> DeadlineExceeded | None:
    """The wait alone would miss it, or the wait and the least that it takes then."""
    if event.deadline_ns is None:
        return None
    least_ns = state.costs[event.model.model_id].at_least_ns(prediction)
    if now_ns + outlook.known_ns + least_ns <= event.deadline_ns:
        return None
    service_s = prediction.service_ns / NS
    return DeadlineExceeded(
        f"the deadline is in {max(0, event.deadline_ns - now_ns) / NS:.2f} s, a row comes free in "
        f"about {outlook.wait_s:.2f} s, and the answer then takes about {service_s:.2f} s",
        param="llmos.deadline_ms",
        details={"wait_s": outlook.wait_s, "service_s": service_s},
    )
