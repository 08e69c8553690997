"""Looks into a core's state after a step: everything is counted again and must agree."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from llmos.abi.policy import Tuning
from llmos.abi.principal import ServiceClass
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.replica import HOST, Replica, ReplicaState
from llmos.kernel.core.request import QUEUED, Request, RequestState
from llmos.kernel.core.state import ALARM_GRID_NS, State
from llmos.kernel.sim import rooms
from llmos.kernel.sim.demand import demand
from llmos.kernel.sim.order import RULES, Rule
from llmos.kernel.sim.seen import Host, Seen
from llmos.kernel.sim.witness import Witness


def check(state: State, witness: Witness, rule: Rule | None, tuning: Tuning, now_ns: int) -> None:
    """Raises Violation. O(open requests)."""
    demand(state.requests.keys() == witness.open.keys(), "open requests differ from the promised")
    rooms.check(state, witness, now_ns)
    _check_queues(state)
    _check_tenants(state)
    _check_timers(state, now_ns)
    for seen in witness.open.values():
        _check_request(state, state.requests[seen.request_id], seen)
        if seen.stalled_ns is not None and not seen.is_aborted:
            until_ns = seen.stalled_ns + state.limits.stall_timeout_ns + ALARM_GRID_NS
            demand(now_ns <= until_ns, "kept though nobody has read for long")
    for replica in state.replicas.values():
        _check_rows(state, replica, witness)
        if replica.state is ReplicaState.READY:
            _check_use(state, replica, rule, tuning, witness, now_ns)
        _note_free(state, replica, witness.hosts[replica.replica_id])


def _note_free(state: State, replica: Replica, host: Host) -> None:
    """Whatever came free since it last moved, nobody has to have looked at."""
    free_bytes = _free_bytes(state, replica.model.device)
    host.free_bytes = free_bytes if host.has_moved else min(host.free_bytes, free_bytes)
    host.has_moved = False


def _free_bytes(state: State, device: str) -> int:
    """For what is paused: nothing, while a model waits for it."""
    return -1 if state.lacking else state.free_bytes(device)


def _check_request(state: State, request: Request, seen: Seen) -> None:
    """What is known of it, against what was seen."""
    demand(request.replica_id == seen.replica_id, "it is thought to be elsewhere")
    demand(request.is_held == seen.is_held, "it is held, or is not")
    demand(request.num_tokens == seen.num_tokens, "another number of tokens")
    demand((request.snapshot_bytes is not None) == seen.has_snapshot, "its snapshot, or none")
    demand(request.num_suspensions == seen.num_suspensions, "another number of suspensions")
    demand(seen.num_taken <= request.num_preempted, "a row taken from it was not counted")
    most = max(state.limits.max_preemptions, 0)
    demand(request.num_preempted <= most, "it gave way to higher classes too often")


def _check_queues(state: State) -> None:
    """Who waits, model by model: counted, in tokens, and in predicted time."""
    num: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    num_fresh = 0
    work: Counter[tuple[str, int]] = Counter()
    for request_id, request in state.requests.items():
        if not is_queued(state, request):
            continue
        there = state.queue(request.model_id)
        demand(request_id in there, f"{request_id} is in no queue")
        num[request.model_id] += 1
        waiting = request.waiting
        start_ns = request.deadline_ns
        if start_ns is not None:
            start_ns -= int(request.prediction.service_ns)
        demand(waiting.start_by_ns == start_ns, "it may start later, or must earlier")
        _check_work(request)
        tokens[request.model_id] += request.queued_tokens
        work[request.model_id, waiting.service_class] += round(request.queued_ns)
        model_fresh = state.backlogs[request.model_id].fresh[waiting.service_class]
        is_fresh = _may_be_shed(request, waiting.service_class)
        for fresh in (model_fresh, state.fresh[waiting.service_class]):
            demand((request_id in fresh) == is_fresh, "it may be shed, or may not")
            num_fresh += is_fresh
    for index in (state.fresh, *(backlog.fresh for backlog in state.backlogs.values())):
        num_fresh -= sum(map(len, index.values()))
    demand(num_fresh == 0, "one that may be shed waits no more")
    demand(state.num_waiting == num.total(), "the number of waiting requests is wrong")
    for model_id, queue in state.queues.items():
        demand(len(queue) == num[model_id], f"the queue of {model_id} is of another length")
        backlog = state.backlogs[model_id]
        demand(backlog.tokens == tokens[model_id], "the backlog's tokens are wrong")
        for kind, there in backlog.of_class.items():
            near_ns = 1e-6 * there.service_ns + 1e5
            is_near = abs(there.service_ns - work[model_id, kind]) <= near_ns
            demand(is_near, "the backlog's time is wrong")
        by_class = sum(there.tokens for there in backlog.of_class.values())
        demand(by_class == backlog.tokens, "the backlog's tokens by class are wrong")


def _check_work(request: Request) -> None:
    """The whole of a new request, of one that has run what it had not made when it was parked."""
    waiting, whole_ns = request.waiting, request.prediction.service_ns
    if request.state is RequestState.WAITING:
        whole = waiting.prompt_tokens + waiting.expected_tokens
        demand(request.queued_tokens == whole, "it counts for other tokens than it has")
        demand(request.queued_ns == whole_ns, "it counts for another time than was predicted")
        return
    most = max(1, waiting.expected_tokens)
    least = max(1, waiting.expected_tokens - request.num_tokens)  # some may have come since
    demand(least <= request.queued_tokens <= most, "it counts for what it has made already")
    demand(0 <= request.queued_ns <= whole_ns, "it counts for more time than was predicted")


def is_queued(state: State, request: Request) -> bool:
    """Parked requests of a replica that takes nothing new wait for a row of it, in no queue."""
    if request.state not in QUEUED or request.is_held or request.stalled_ns is not None:
        return False
    replica = state.replicas.get(request.replica_id or "")
    return replica is None or replica.state is ReplicaState.READY


def _check_tenants(state: State) -> None:
    num_open = Counter(request.waiting.tenant_id for request in state.requests.values())
    demand(dict(num_open) == state.open_of_tenant, "open requests by tenant are wrong")


def _check_timers(state: State, now_ns: int) -> None:
    """Nobody is kept past a deadline or a stall, and a wake-up is planned for the next."""
    next_ns = state.next_due_ns()
    demand(len(state.timers) == len(state.alarms), "the same alarm is set twice")
    for request in state.requests.values():
        due_ns = None
        if request.state is RequestState.WAITING:
            due_ns = _last_start_ns(request)
        elif request.stalled_ns is not None:
            due_ns = request.stalled_ns + state.limits.stall_timeout_ns
        if due_ns is not None:
            due_ns += ALARM_GRID_NS
            demand(now_ns <= due_ns, "kept past its time")
            demand(next_ns is not None and next_ns <= due_ns, "no wake-up is planned")


def _last_start_ns(request: Request) -> int | None:
    """By its deadline, or by a quarter of its predicted time before that."""
    least, most = request.begin_by_ns, request.deadline_ns
    if least is None or most is None:
        demand(least is most, "a deadline that nobody keeps")
        return None
    quarter_ns = request.prediction.service_ns / 4
    is_right = least == most or abs(most - least - quarter_ns) <= 1
    demand(is_right, "dropped at another time before its deadline")
    return least


def _check_rows(state: State, replica: Replica, witness: Witness) -> None:
    host = witness.hosts[replica.replica_id]
    demand(replica.num_slots == host.num_slots, "rows differ from those it came up with")
    demand(replica.running.keys() == host.running, "rows differ from those given")
    demand(replica.parked.keys() == host.parked, "parked requests differ from those paused")
    demand(replica.leaving.keys() == host.leaving, "others are leaving than were told to")
    demand(len(replica.running) <= replica.num_slots, "more rows than there are")
    for request_id in replica.running:
        request = state.requests[request_id]
        is_right = request.state in (RequestState.RUNNING, RequestState.STOPPING)
        demand(is_right, "a row is held by one that does not run")
        is_told = request.reason.startswith("row ") or request.state is RequestState.STOPPING
        demand(is_told, "the reason is not that it runs")
    for request_id in replica.parked:
        request = state.requests[request_id]
        demand(request.state is not RequestState.RUNNING, "it runs without a row")
        demand(request.stalled_ns is None or request.state in _QUIET, "it stalls and waits")
    if replica.state is ReplicaState.DRAINING:
        demand(not replica.is_empty, "a drained replica is kept")


_QUIET = (RequestState.STALLED, RequestState.STOPPING)


def _check_use(
    state: State,
    replica: Replica,
    rule: Rule | None,
    tuning: Tuning,
    witness: Witness,
    now_ns: int,
) -> None:
    """No free row while someone waits; nobody keeps a row he should have given up."""
    queue = state.queue(replica.model.model_id)
    if not len(queue):
        return
    demand(replica.num_free_slots <= 0, "a row is free and someone waits")
    head = state.requests[queue.peek().request_id]
    highest = max(
        r.waiting.service_class
        for r in state.requests.values()
        if r.model_id == head.model_id and is_queued(state, r)
    )
    running = [state.requests[r] for r in replica.running]
    running = [r for r in running if _may_give(state, replica, r, head, highest, witness, now_ns)]
    for request in running:
        reason = queue.yields(request.waiting, request.slice_tokens)
        demand(reason is None, "a row should have been given up")
    if rule is not None and rule.is_by_class:
        _check_classes(state, running, replica.model.model_id, tuning)


def _may_give(
    state: State,
    replica: Replica,
    request: Request,
    head: Request,
    highest: int,
    witness: Witness,
    now_ns: int,
) -> bool:
    """Whether its row may be taken at all: there is a place for what it has, and to a higher class
    it has not given way too often."""
    limits, model = state.limits, replica.model
    if request.state is not RequestState.RUNNING:
        return False
    is_lower = request.waiting.service_class < highest
    is_new = head.replica_id is None or any(
        r.comes_first and r.replica_id is None and r.model_id == model.model_id
        for r in state.requests.values()
    )
    num_parked = len(replica.parked)
    if is_new and not is_lower and num_parked >= limits.max_parked - limits.max_parked // 2:
        return False  # turns leave half of the room to higher classes
    if is_lower and not request.is_on_credit and request.num_preempted >= limits.max_preemptions:
        return False
    size = request.context_tokens * model.kv_bytes_per_token
    free_bytes = witness.hosts[replica.replica_id].free_bytes
    has_room = not size or size <= min(free_bytes, _free_bytes(state, model.device))
    if has_room and not (is_new and num_parked >= limits.max_parked):
        return True
    return is_lower and model.snapshots and now_ns >= request.not_before_ns


def _check_classes(state: State, running: list[Request], model_id: str, tuning: Tuning) -> None:
    """A lower class keeps a row of a higher one that waits for one slice at most."""
    kinds = {
        request.waiting.service_class
        for request in state.requests.values()
        if request.model_id == model_id and is_queued(state, request)
    }
    lowest = min(kinds)
    for request in running:
        over = request.slice_tokens >= tuning.slice_tokens
        kept = request.waiting.service_class < lowest and over
        demand(not kept, "a lower class keeps the row of a higher one")


@dataclass(frozen=True, slots=True)
class Expected:
    """The error code an arrival must get, by the bounds alone; None: none of those.

    `is_full`: then it must find no place; None: that hangs on who is shed for it. Of deadlines it
    says nothing: those hang on predictions. `num_least` and `num_most`: who waits already and goes
    first, of the higher classes, and of its own.
    """

    code: str | None
    is_full: bool | None
    num_least: int
    num_most: int

    def check_ahead(self, num: int) -> None:
        demand(self.num_least <= num <= self.num_most, "behind another number")


def expected(state: State, event: ev.Arrived, rule: Rule | None, now_ns: int) -> Expected:
    """Looked at before the step."""
    kinds = [
        request.waiting.service_class
        for request in state.requests.values()
        if request.model_id == event.model.model_id and is_queued(state, request)
    ]
    own = event.waiting.service_class
    num_most, num_higher = sum(k >= own for k in kinds), sum(k > own for k in kinds)
    if rule is None or not rule.is_by_class:
        num_higher, num_most = 0 if rule is None else len(kinds), len(kinds)
    elif rule is not RULES["fair"]:
        num_higher = num_most
    code = _expected_code(state, event, now_ns)
    return Expected(code, _is_full(state, event), num_higher, num_most)


def _expected_code(state: State, event: ev.Arrived, now_ns: int) -> str | None:
    limits, model_id, waiting = state.limits, event.model.model_id, event.waiting
    fault = state.faults.get(model_id)
    if state.draining:
        return "shutting_down"
    if fault is not None and fault.cooling and now_ns < fault.retry_ns:
        return "load_failed"
    budgets = {HOST: limits.memory_budget_bytes, **dict(limits.device_budgets)}
    if any(size > budgets.get(d, 0) for d, size in state.needs(event.model).items()):
        return "model_too_large"
    if state.open_of_tenant.get(waiting.tenant_id, 0) >= limits.max_open_per_tenant:
        return "quota_exceeded"
    if _tokens(state, event) >= limits.max_waiting_tokens * limits.share(waiting.service_class) + 1:
        return "payload_too_large"
    return None


def _tokens(state: State, event: ev.Arrived) -> int:
    """What it counts for in a queue."""
    waiting, cost = event.waiting, state.costs[event.model.model_id]
    predicted = cost.predict(waiting.principal_id, waiting.prompt_tokens, event.max_tokens, 1)
    return waiting.prompt_tokens + round(predicted.output_tokens)


def _is_full(state: State, event: ev.Arrived) -> bool | None:
    """Also when all of the lower classes that may be are shed. None: it hangs on whom."""
    limits, model_id, kind = state.limits, event.model.model_id, event.waiting.service_class
    queue, share = state.queue(model_id), limits.share(kind)
    ready = [r for r in state.replicas_of(model_id) if r.state is ReplicaState.READY]
    if not len(queue) and any(r.num_slots > len(r.running) for r in ready):
        return False
    lacks = (
        len(queue) + 1 - math.ceil(limits.max_waiting_per_model * share),
        state.num_waiting + 1 - math.ceil(limits.max_waiting * share),
        state.backlogs[model_id].tokens
        + _tokens(state, event)
        - math.ceil(limits.max_waiting_tokens * share),
    )
    gifts = [0, 0, 0]
    sparing = 0
    for lower in (c for c in ServiceClass if c < kind):
        there = [r for r in state.requests.values() if _may_be_shed(r, lower)]
        here = sorted(r.queued_tokens for r in there if r.model_id == model_id)
        num_of = Counter(r.model_id for r in there)
        kept = math.ceil(min(limits.max_waiting_per_model, limits.max_waiting) / 100)
        spare = {m: max(0, num - kept) for m, num in num_of.items()}
        num_here = spare.get(model_id, 0)
        gifts[0] += num_here
        gifts[1] += sum(spare.values())
        gifts[2] += sum(here)
        sparing += sum(here[:num_here])
    if any(lack > max(0, gift) for lack, gift in zip(lacks, gifts, strict=True)):
        return True
    return None if lacks[2] > max(0, sparing) else False


def _may_be_shed(request: Request, kind: ServiceClass) -> bool:
    if request.is_held:
        return False
    return request.state is RequestState.WAITING and request.waiting.service_class is kind


def check_answer(expected: Expected, event: ev.Arrived, answer: do.Decision) -> None:
    """The first decision after a lone arrival."""
    code = answer.error.code if isinstance(answer, do.Refuse) else None
    if isinstance(answer, do.Refuse):
        _check_refusal(expected, answer)
    elif isinstance(answer, do.Accept):
        words = answer.reason.split(maxsplit=3)
        demand(words[:2] == ["queued", "behind"], "accepted without why")
        expected.check_ahead(int(words[2].rstrip(",")))
    if expected.code is None and code == "deadline_exceeded":
        demand(event.deadline_ns is not None, "refused for a deadline nobody set")
        return
    right = expected.code
    if right is None and expected.is_full is not False and code in (None, "queue_full"):
        right = "queue_full" if expected.is_full else code
    demand(code == right, f"an arrival was answered with {code}, not {right}")


_HOPELESS = ("model_too_large", "payload_too_large", "shutting_down")


def _check_refusal(expected: Expected, answer: do.Refuse) -> None:
    """It says where it would have stood, why, and when to come again."""
    details, retry_s = answer.error.details, answer.error.retry_after_s
    demand({"position", "reason", "eta_s"} <= set(details), "refused without why")
    expected.check_ahead(details["position"] - 1)
    wait_s = details.get("wait_s", retry_s)
    if answer.error.code in _HOPELESS:
        demand(details["eta_s"] is None and retry_s is None, "told to wait for what never comes")
        return
    if answer.error.code == "queue_full" and wait_s is not None and details["eta_s"] > 1:
        demand(abs(wait_s - details["eta_s"]) < 0.06, "another wait than the answer says")
    elif answer.error.code != "queue_full" and wait_s is not None:
        demand(details["eta_s"] == round(wait_s, 3), "another wait than the answer says")
