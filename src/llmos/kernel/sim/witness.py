"""Watches a core from outside, by what it is told and what it decides, and trusts nothing inside.

A broken promise raises `Violation`: an event lost or delivered twice, more rows, parked requests or
bytes than there are, someone overtaken by more than the policy's bound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from llmos.abi.events import Failed
from llmos.abi.policy import Waiting
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import Limits
from llmos.kernel.sim.accounts import Accounts
from llmos.kernel.sim.blame import Blame
from llmos.kernel.sim.demand import Violation, demand

__all__ = ["RULES", "Host", "Rule", "Seen", "Violation", "Witness", "demand"]

NICE_STEPS = 39
RETURN_STEPS = 6


@dataclass(frozen=True, slots=True)
class Rule:
    """Among requests of one `flow`, none first runs before one that came more than `slack` earlier.

    `slack`: in steps of nice, which a deadline cannot exceed either.
    Who comes back from a row counts as having come then, or up to `back` steps later.
    `is_in_turn`: who is reniced goes to the end, so his own turn is not judged.
    """

    flow: Callable[[str, Waiting], Hashable]
    slack: int
    back: int = 0
    is_by_class: bool = True
    is_in_turn: bool = False


RULES: dict[str, Rule] = {
    "fair": Rule(
        lambda m, w: (m, w.service_class, w.tenant_id, w.principal_id),
        NICE_STEPS,
        RETURN_STEPS,
    ),
    "priority": Rule(lambda m, w: (m, w.service_class), NICE_STEPS, RETURN_STEPS),
    "round-robin": Rule(lambda m, w: (m, w.service_class), 0, is_in_turn=True),
    "fifo": Rule(lambda m, w: m, 0, is_by_class=False),
}


@dataclass(slots=True)
class Seen:
    """An accepted request. `replica_id` None: it has not run. `since_ns`: when it came (back)."""

    waiting: Waiting
    model_id: str
    since_ns: int
    reserve_bytes: int
    is_reniced: bool = False
    is_stalled: bool = False
    stalled_ns: int | None = None
    is_aborted: bool = False
    replica_id: str | None = None


@dataclass(slots=True)
class Host:
    """A replica from its start to the death of its process."""

    model_id: str
    num_slots: int
    reserved_bytes: int
    is_up: bool = False
    is_stopping: bool = False
    has_served: bool = False
    up_ns: int | None = None
    idle_since_ns: int = 0
    running: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)


class Witness:
    """`told` before a step, `saw` after it. `rule` None: an unknown policy, order is not judged."""

    def __init__(self, limits: Limits, rule: Rule | None, nice_step_ns: int) -> None:
        self._limits = limits
        self._rule = rule
        self._nice_step_ns = nice_step_ns
        self._asked: dict[str, ev.Arrived] = {}
        self._waiting: dict[Hashable, dict[str, int]] = {}
        self._num_stalled_now = 0
        self._num_parked_before: dict[str, int] = {}
        self._not_before_ns: dict[str, int] = {}
        self._early_deaths: dict[str, int] = {}
        self._ended_badly: list[tuple[str, bool]] = []
        self._pinned: dict[str, int] = {}
        self._accounts = Accounts()
        self._now_up: list[Host] = []
        self._now_stalled: list[Seen] = []
        self._failed: list[tuple[str, Host | None]] = []
        self._ended: set[str] = set()
        self._cancelled: list[str] = []
        self._unwanted: list[str] = []
        self._newcomers: list[ev.Arrived] = []
        self._is_closing = False
        self.is_draining = False
        self.blames: defaultdict[str, Blame] = defaultdict(Blame)
        self.wanted: set[str] = set()
        self.open: dict[str, Seen] = {}
        self.hosts: dict[str, Host] = {}
        self.num_accepted = self.num_closed = self.num_refused = 0

    # what the core is told

    def told(self, events: Sequence[ev.CoreEvent]) -> None:
        """What the step is about to take in."""
        self._accounts.told(events, lambda r: r in self.open and self.open[r].is_stalled)
        self._now_up, self._failed, self._ended = [], [], set()
        self._cancelled, self._unwanted, self._now_stalled = [], [], []
        self._newcomers = []
        self._num_stalled_now = 0
        self._num_parked_before = {r: len(host.parked) for r, host in self.hosts.items()}
        for event in events:
            if isinstance(event, ev.Arrived):
                self._asked[event.waiting.request_id] = event
                self._newcomers.append(event)
            elif isinstance(event, ev.ReplicaUp):
                self._up(event)
            elif isinstance(event, ev.ReplicaGone):
                self._gone(event)
            elif isinstance(event, ev.ReplicaRefused):
                self._refused(event)
            elif isinstance(event, ev.ModelWanted | ev.ModelUnwanted | ev.Draining | ev.Closing):
                self._ordered(event)
            else:
                self._told_of_request(event)

    def _ordered(self, event: ev.ModelWanted | ev.ModelUnwanted | ev.Draining | ev.Closing) -> None:
        """By an operator."""
        if isinstance(event, ev.ModelWanted):
            self.wanted.add(event.model.model_id)
            if event.pin:
                self._pinned[event.model.model_id] = event.model.reserve_bytes
        elif isinstance(event, ev.ModelUnwanted):
            self._unwanted.append(event.model_id)
            self._pinned.pop(event.model_id, None)
        else:
            self.is_draining = True
            if isinstance(event, ev.Closing):
                self._is_closing = True
                self._unwanted += self.wanted

    def _told_of_request(self, event: ev.CoreEvent) -> None:
        """By its client or its worker."""
        if isinstance(event, ev.Reniced):
            self._reniced(event)
        elif isinstance(event, ev.Cancelled):
            self._cancelled.append(event.request_id)
        elif isinstance(event, ev.Ended):
            self._ended.add(event.request_id)
            seen = self.open.get(event.request_id)
            host = self.hosts.get(seen.replica_id or "") if seen is not None else None
            if host is not None and not isinstance(event.event, Failed):
                host.has_served = True
        elif isinstance(event, ev.ReaderStalled | ev.ReaderResumed):
            seen = self.open.get(event.request_id)
            if seen is not None and seen.replica_id is not None:  # else nothing is sent yet
                seen.is_stalled = isinstance(event, ev.ReaderStalled)
                self._now_stalled.append(seen)
                self._leave_flow(seen)  # when it is back in the queue is not judged
                self._num_stalled_now += seen.is_stalled

    def _up(self, event: ev.ReplicaUp) -> None:
        host = self.hosts.get(event.replica_id)
        if host is None or host.is_up or host.is_stopping:
            return
        host.is_up = True
        self._now_up.append(host)
        self.blames[host.model_id].is_cooling = False
        self._early_deaths.pop(host.model_id, None)
        host.num_slots = event.num_slots
        host.reserved_bytes = min(host.reserved_bytes, event.used_bytes)

    def _refused(self, event: ev.ReplicaRefused) -> None:
        """Of one that is up or stops, it is a duplicate, or no news."""
        host = self.hosts.get(event.replica_id)
        if host is not None and not host.is_up and not host.is_stopping:
            self._ended_badly.append((host.model_id, True))
            self._failed.append((host.model_id, None))

    def _gone(self, event: ev.ReplicaGone) -> None:
        host = self.hosts.pop(event.replica_id, None)
        if host is None:
            return
        for request_id in (*host.running, *host.parked):
            self.open[request_id].replica_id = "gone"
        if not host.is_stopping:
            self._failed.append((host.model_id, host))
        if not host.is_up and not host.is_stopping:
            num = self._early_deaths.get(host.model_id, 0) + 1
            self._early_deaths[host.model_id] = num
            if num > 1:
                self._ended_badly.append((host.model_id, False))

    def _reniced(self, event: ev.Reniced) -> None:
        if seen := self.open.get(event.request_id):
            is_waiting = self._leave_flow(seen)
            old = seen.waiting
            seen.waiting = Waiting(
                **{
                    **{name: getattr(old, name) for name in old.__struct_fields__},
                    "nice": old.nice if event.nice is None else event.nice,
                    "service_class": (
                        old.service_class if event.service_class is None else event.service_class
                    ),
                }
            )
            seen.is_reniced = True
            if is_waiting:
                self._join_flow(seen)

    # what the core decides

    def saw(self, decisions: Sequence[do.Decision], now_ns: int) -> None:
        """In the order in which they were made. Raises Violation."""
        self._accounts.begin(now_ns)
        self._recount(now_ns)
        for model_id, is_refused in self._ended_badly:
            limits = self._limits
            wait_ns = limits.cooldown_ns if is_refused else limits.min_backoff_ns
            self._not_before_ns[model_id] = now_ns + wait_ns
            num_deaths = self._early_deaths.get(model_id, 0)
            if is_refused or num_deaths >= limits.max_start_failures:
                self._nobody_waits_for(model_id, decisions)
        self._ended_badly = []
        self._judge_pauses(decisions)
        for decision in decisions:
            self._see(decision, now_ns)
        self._judge_orders()
        for seen in self.open.values():
            demand(seen.replica_id != "gone", "a request outlived its worker")
        for replica_id, host in self.hosts.items():
            before = self._num_parked_before.get(replica_id, 0) + self._num_stalled_now
            most = max(self._limits.max_parked, before)
            demand(len(host.parked) <= most, f"{len(host.parked)} parked on {replica_id}")

    def _recount(self, now_ns: int) -> None:
        for host in self._now_up:
            host.up_ns = now_ns
        for seen in self._now_stalled:
            seen.stalled_ns = (seen.stalled_ns or now_ns) if seen.is_stalled else None
        for model_id, dead in self._failed:
            if dead is None:
                self.blames[model_id].refused(now_ns, self._limits)
                continue
            up_ns = 0 if dead.up_ns is None else now_ns - dead.up_ns
            is_proven = dead.has_served or up_ns >= self._limits.healthy_ns
            self.blames[model_id].died(is_proven, now_ns, self._limits)

    def _judge_orders(self) -> None:
        """Who is to stop is told to; who asked for a model that is not to come hears so."""
        for request_id in self._cancelled:
            seen = self.open.get(request_id)
            demand(seen is None or seen.is_aborted, "a client left, and its request goes on")
        for model_id in self._unwanted:
            demand(model_id not in self.wanted, "nobody is told that the model will not come")

    def _nobody_waits_for(self, model_id: str, decisions: Sequence[do.Decision]) -> None:
        """After so many failures in a row everyone who waits is told."""
        told = {d.request_id for d in decisions if isinstance(d, do.Close)}
        for request_id, seen in self.open.items():
            waits = seen.model_id == model_id and seen.replica_id is None
            demand(not waits or request_id in told, "waits for a model that does not start")
        self._unwanted.append(model_id)

    def _judge_pauses(self, decisions: Sequence[do.Decision]) -> None:
        """A row is not given up to be taken back at once, with nothing changed."""
        paused = {d.request_id for d in decisions if isinstance(d, do.PauseRow)}
        back = {d.request_id for d in decisions if isinstance(d, do.UnpauseRow)}
        changed = any(isinstance(d, do.Dispatch | do.Close) for d in decisions)
        demand(len(paused) != 1 or changed or paused != back, "paused for nothing")

    def _see(self, decision: do.Decision, now_ns: int) -> None:
        if isinstance(decision, do.Accept):
            self._accept(decision, now_ns)
        elif isinstance(decision, do.Refuse):
            demand(decision.request_id in self._asked, "refused what nobody asked")
            del self._asked[decision.request_id]
            self.num_refused += 1
        elif isinstance(decision, do.Close):
            self._close(decision, now_ns)
        elif isinstance(decision, do.Resident):
            demand(decision.model_id in self.wanted, "a model nobody asked for is there")
            self.wanted.discard(decision.model_id)
        elif isinstance(decision, do.StartReplica):
            self._start(decision, now_ns)
        elif isinstance(decision, do.StopReplica):
            host = self._host(decision.replica_id)
            demand(not host.is_stopping, "stopped twice")
            demand(not host.running and not host.parked, "stopped with requests on it")
            if decision.reason.startswith("idle for"):
                spent_ns = now_ns - host.idle_since_ns
                demand(spent_ns >= self._limits.keep_alive_ns, "stopped before its keep-alive")
            host.is_stopping = True
        elif isinstance(decision, do.Dispatch | do.PauseRow | do.UnpauseRow | do.AbortRow):
            self._row(decision, now_ns)

    def _accept(self, decision: do.Accept, now_ns: int) -> None:
        demand(decision.request_id in self._asked, "accepted what nobody asked")
        event = self._asked.pop(decision.request_id)
        seen = Seen(
            event.waiting,
            event.model.model_id,
            now_ns,
            event.model.reserve_bytes,
        )
        self.open[decision.request_id] = seen
        self.num_accepted += 1
        self._accounts.accepted(decision, now_ns)
        self._join_flow(seen)

    def _close(self, decision: do.Close, now_ns: int) -> None:
        request_id = decision.request_id
        demand(request_id in self.open, f"{request_id} ended twice, or was never accepted")
        demand(decision.event.request_id == request_id, "another request's terminal event")
        seen = self.open.pop(request_id)
        error = getattr(decision.event, "error", None)
        if error is not None and error.code == "model_too_large":
            self._judge_crowding(seen)
        if error is not None and error.code == "queue_full":
            self._judge_shedding(seen)
        self._leave_flow(seen)
        self.num_closed += 1
        self._accounts.closed(decision, now_ns)
        host = self.hosts.get(seen.replica_id or "")
        if host is not None:
            is_over = request_id in self._ended or seen.is_aborted or self._is_closing
            demand(is_over, "it ended, and goes on at its worker")
            host.running.discard(request_id)
            host.parked.discard(request_id)
            host.idle_since_ns = now_ns

    def _judge_shedding(self, seen: Seen) -> None:
        """Only before its first row, and for one of a higher class."""
        demand(seen.replica_id is None, "shed after it had begun")
        kinds = [event.waiting.service_class for event in self._newcomers]
        demand(max(kinds, default=-1) > seen.waiting.service_class, "shed for nobody")

    def _judge_crowding(self, seen: Seen) -> None:
        """An accepted request fits an empty machine, so only pinned models can crowd it out."""
        others = sum(size for model_id, size in self._pinned.items() if model_id != seen.model_id)
        too_much = others + seen.reserve_bytes > self._limits.memory_budget_bytes
        demand(too_much, "refused memory that there is")

    def _start(self, decision: do.StartReplica, now_ns: int) -> None:
        demand(decision.replica_id not in self.hosts, "a replica's name was used twice")
        model = decision.model
        not_before_ns = self._not_before_ns.get(model.model_id, 0)
        demand(now_ns >= not_before_ns, "started again too soon after a failure")
        for host in self.hosts.values():
            is_leaving = host.is_stopping or host.running or host.parked or not host.is_up
            demand(
                host.model_id != model.model_id or bool(is_leaving), "a second idle replica starts"
            )
        used = sum(host.reserved_bytes for host in self.hosts.values())
        budget = self._limits.memory_budget_bytes
        demand(used + model.reserve_bytes <= budget, "more bytes than there are")
        self.hosts[decision.replica_id] = Host(
            model.model_id, model.num_slots, model.reserve_bytes, idle_since_ns=now_ns
        )

    def _row(
        self, decision: do.Dispatch | do.PauseRow | do.UnpauseRow | do.AbortRow, now_ns: int
    ) -> None:
        request_id, host = decision.request_id, self._host(decision.replica_id)
        demand(request_id in self.open, "a decision about a request that has ended")
        seen = self.open[request_id]
        if isinstance(decision, do.Dispatch):
            demand(seen.replica_id is None, "dispatched twice")
            demand(host.is_up and not host.is_stopping, "dispatched to a replica that is not ready")
            demand(host.model_id == seen.model_id, "dispatched to another model")
            self._judge_order(seen, decision.replica_id)
            seen.replica_id = decision.replica_id
            self._take_row(host, request_id)
            self._accounts.runs(decision, len(host.running), host.num_slots, now_ns)
            return
        demand(seen.replica_id == decision.replica_id, "a row of another replica")
        if isinstance(decision, do.PauseRow):
            demand(request_id in host.running, "paused without a row")
            host.running.discard(request_id)
            host.parked.add(request_id)
            self._accounts.paused(request_id, now_ns)
            self._comes_back(seen, now_ns)
            return
        self._leave_flow(seen)
        if isinstance(decision, do.UnpauseRow):
            demand(request_id in host.parked, "unpaused without being paused")
            demand(not seen.is_stalled, "runs though nobody reads")
            host.parked.discard(request_id)
            self._take_row(host, request_id)
            self._accounts.runs(decision, len(host.running), host.num_slots, now_ns)
        else:
            seen.is_aborted = True

    def _take_row(self, host: Host, request_id: str) -> None:
        host.running.add(request_id)
        demand(len(host.running) <= host.num_slots, "more rows than there are")

    def _host(self, replica_id: str) -> Host:
        demand(replica_id in self.hosts, f"{replica_id} does not exist")
        return self.hosts[replica_id]

    # who may go before whom

    def _join_flow(self, seen: Seen) -> None:
        is_moved = seen.is_reniced and self._rule is not None and self._rule.is_in_turn
        if self._rule is not None and not is_moved:
            flow = self._waiting.setdefault(self._rule.flow(seen.model_id, seen.waiting), {})
            flow[seen.waiting.request_id] = seen.since_ns

    def _comes_back(self, seen: Seen, now_ns: int) -> None:
        if self._rule is not None and not seen.is_stalled:
            seen.since_ns = now_ns + self._rule.back * self._nice_step_ns
            self._join_flow(seen)

    def _leave_flow(self, seen: Seen) -> bool:
        if self._rule is None:
            return False
        key = self._rule.flow(seen.model_id, seen.waiting)
        flow = self._waiting.get(key, {})
        was_in = flow.pop(seen.waiting.request_id, None) is not None
        if was_in and not flow:
            del self._waiting[key]
        return was_in

    def _judge_order(self, seen: Seen, replica_id: str) -> None:
        """Who is parked on another replica can run nowhere else, so nobody overtakes it."""
        if self._rule is None:
            return
        key = self._rule.flow(seen.model_id, seen.waiting)
        self._leave_flow(seen)
        if seen.is_reniced and self._rule.is_in_turn:
            return
        others = self._waiting.get(key, {}).items()
        here = (at for r, at in others if self.open[r].replica_id in (None, replica_id))
        earliest = min(here, default=seen.since_ns)
        slack_ns = self._rule.slack * self._nice_step_ns
        demand(seen.since_ns - earliest <= slack_ns, "overtaken by more than the bound")
