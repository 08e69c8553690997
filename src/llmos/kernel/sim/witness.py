"""Watches a core from outside, by what it is told and what it decides, and trusts nothing inside.

A broken promise raises `Violation`: an event lost or delivered twice, more rows, parked requests or
bytes than there are, someone overtaken by more than the policy's bound.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import msgspec

from llmos.abi.events import Failed
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.limits import Limits
from llmos.kernel.core.replica import HOST, ModelFacts
from llmos.kernel.sim.accounts import Accounts
from llmos.kernel.sim.blame import Blame
from llmos.kernel.sim.demand import Violation, demand
from llmos.kernel.sim.order import RULES, Order, Rule
from llmos.kernel.sim.seen import Host, Seen
from llmos.kernel.sim.switch import Switch
from llmos.kernel.sim.tally import Tally

__all__ = ["RULES", "Host", "Rule", "Seen", "Violation", "Witness", "demand"]


class Witness:
    """`told` before a step, `saw` after it. `rule` None: an unknown policy, order is not judged."""

    def __init__(self, limits: Limits, rule: Rule | None, nice_step_ns: int) -> None:
        self._limits = limits
        self._asked: dict[str, ev.Arrived] = {}
        self._num_stalled_now = 0
        self._num_parked_before: dict[str, int] = {}
        self._not_before_ns: dict[str, int] = {}
        self._early_deaths: dict[str, int] = {}
        self._ended_badly: list[tuple[str, bool]] = []
        self._accounts = Accounts()
        self._now_up: list[Host] = []
        self._now_stalled: list[Seen] = []
        self._failed: list[tuple[str, Host | None]] = []
        self._ended: set[str] = set()
        self._cancelled: list[str] = []
        self._unwanted: list[str] = []
        self._newcomers: list[ev.Arrived] = []
        self._is_closing = False
        self.is_draining = self.is_faultless = self.was_lacking = False
        self.pinned: dict[str, ModelFacts] = {}
        self.unpinned: set[str] = set()
        self.blames: defaultdict[str, Blame] = defaultdict(Blame)
        self.wanted: set[str] = set()
        self.lacking: dict[str, str] = {}
        self.longest_load_ns = 0
        self.num_fruitless: Counter[str] = Counter()
        self.keep_alive: dict[str, int] = {}
        self.open: dict[str, Seen] = {}
        self.hosts: dict[str, Host] = {}
        self.tally = Tally(limits)
        self._order = Order(rule, nice_step_ns, self.open, self.is_queued)
        self.switch = Switch(
            limits,
            accounts=self._accounts,
            order=self._order,
            requests=self.open,
            hosts=self.hosts,
            tally=self.tally,
        )
        self.num_accepted = self.num_closed = self.num_refused = 0

    def is_queued(self, seen: Seen) -> bool:
        """It waits for a row that its model's policy gives."""
        if seen.is_held or seen.is_stalled or seen.is_aborted or seen.is_leaving:
            return False
        host = self.hosts.get(seen.replica_id or "")
        return host is None or (host.takes_new and seen.request_id not in host.running)

    # what the core is told

    def told(self, events: Sequence[ev.CoreEvent]) -> None:
        """What the step is about to take in."""
        self.switch.begin()
        self._accounts.told(events)
        self._now_up, self._failed, self._ended = [], [], set()
        self._cancelled, self._unwanted, self._now_stalled = [], [], []
        self._newcomers = []
        self._num_stalled_now = 0
        self._num_parked_before = {r: len(host.parked) for r, host in self.hosts.items()}
        for event in events:
            if isinstance(event, ev.Arrived):
                self._asked[event.waiting.request_id] = event
                self._newcomers.append(event)
            elif isinstance(event, _OF_REPLICAS):
                self._told_of_replica(event)
            elif isinstance(event, ev.MemoryMeasured):
                self.tally.headroom = dict(event.headroom)
            elif not self.switch.told(event):
                self._told_of_request(event)
                self._ordered(event)

    def _ordered(self, event: ev.CoreEvent) -> None:
        """By an operator."""
        if isinstance(event, ev.ModelWanted):
            model_id = event.model.model_id
            self.wanted.add(model_id)
            if event.pin:
                self.pinned[model_id] = event.model
            if event.keep_alive_ns is not None:
                self.keep_alive[model_id] = event.keep_alive_ns
        elif isinstance(event, ev.ModelUnwanted | ev.ModelUnpinned):
            if isinstance(event, ev.ModelUnwanted):
                self._unwanted.append(event.model_id)
            self.pinned.pop(event.model_id, None)
            self.unpinned.add(event.model_id)
        elif isinstance(event, ev.Draining | ev.Closing):
            self.is_draining = True
            if isinstance(event, ev.Draining):
                self.switch.drained()
            if isinstance(event, ev.Closing):
                self._is_closing = True
                self._unwanted += self.wanted
                self.unpinned |= self.pinned.keys()
                self.pinned.clear()

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
                host.has_served = host.has_made = True
        elif isinstance(event, ev.ReaderStalled | ev.ReaderResumed):
            seen = self.open.get(event.request_id)
            if seen is not None and seen.has_run and not seen.is_aborted:  # else nothing is sent
                was_stalled, seen.is_stalled = seen.is_stalled, isinstance(event, ev.ReaderStalled)
                self._now_stalled.append(seen)
                self._order.leave(seen)  # when it is back in the queue is not judged
                self._num_stalled_now += seen.is_stalled
                if was_stalled and not seen.is_stalled and not seen.is_leaving:
                    self._accounts.back(event.request_id)

    def _told_of_replica(self, event: ev.CoreEvent) -> None:
        if isinstance(event, ev.ReplicaUp):
            self._up(event)
        elif isinstance(event, ev.ReplicaGone):
            self._gone(event)
        elif isinstance(event, ev.ReplicaRefused):
            self._refused(event)
        elif isinstance(event, ev.ReplicaMeasured):
            host = self.hosts.get(event.replica_id)
            if host is not None and host.is_up and not _is_away(host):
                self.tally.learn_more(host.model, event)
                used = (event.used_bytes, event.device_used_bytes)
                for device, size in zip(_devices(host.model), used, strict=False):
                    if size > self.tally.held[device].get(event.replica_id, 0):
                        self.tally.measure(event.replica_id, device, size)
        elif isinstance(event, ev.ReplicaParked | ev.ReplicaUnparked):
            self._moved(event)

    def _moved(self, event: ev.ReplicaParked | ev.ReplicaUnparked) -> None:
        """Parked, back again, or not parked after all."""
        host = self.hosts.get(event.replica_id)
        if host is None or host.is_stopping:
            return
        is_parked = isinstance(event, ev.ReplicaParked)
        demand(host.is_parking if is_parked else host.is_unparking, "an answer nobody asked for")
        host.is_parking = host.is_unparking = False
        if isinstance(event, ev.ReplicaParked) and event.error is None:
            host.is_parked = True
        else:
            host.is_draining = host.is_parked = host.has_made = False
            self._now_up.append(host)
            if is_parked:
                return
        used = (event.used_bytes, event.device_used_bytes)
        self.tally.bound(event.replica_id, host.model, *used)

    def _up(self, event: ev.ReplicaUp) -> None:
        host = self.hosts.get(event.replica_id)
        if host is None or host.is_up or host.is_stopping:
            return
        host.is_up = True
        self._now_up.append(host)
        self.blames[host.model_id].is_cooling = False
        self._early_deaths.pop(host.model_id, None)
        host.num_slots = event.num_slots
        used = (event.used_bytes, event.device_used_bytes)
        self.tally.bound(event.replica_id, host.model, *used)
        self.tally.learn(host.model, event)

    def _refused(self, event: ev.ReplicaRefused) -> None:
        """Of one that is up or stops, it is a duplicate, or no news."""
        host = self.hosts.get(event.replica_id)
        if host is not None and host.is_unparking and not host.is_stopping:
            self.unpinned.add(host.model_id)  # it goes, and another comes
        elif host is not None and not host.is_up and not host.is_stopping:
            self._ended_badly.append((host.model_id, True))
            self._failed.append((host.model_id, None))
            self.unpinned.add(host.model_id)

    def _gone(self, event: ev.ReplicaGone) -> None:
        host = self.hosts.pop(event.replica_id, None)
        if host is None:
            return
        self.tally.free(event.replica_id)
        self.switch.worker_died(host)
        if not host.is_stopping:
            self._failed.append((host.model_id, host))
        if not host.is_up and not host.is_stopping:
            num = self._early_deaths.get(host.model_id, 0) + 1
            self._early_deaths[host.model_id] = num
            if num > 1:
                self._ended_badly.append((host.model_id, False))

    def _reniced(self, event: ev.Reniced) -> None:
        if seen := self.open.get(event.request_id):
            is_waiting = self._order.leave(seen)
            old = seen.waiting
            seen.waiting = msgspec.structs.replace(
                old,
                nice=old.nice if event.nice is None else event.nice,
                service_class=(
                    old.service_class if event.service_class is None else event.service_class
                ),
            )
            seen.is_reniced = True
            if is_waiting:
                self._order.join(seen)

    # what the core decides

    def saw(
        self, decisions: Sequence[do.Decision], now_ns: int, draining: Collection[str] = ()
    ) -> None:
        """In the order in which they were made. `draining`: replicas that take nothing new, which
        no decision says. Raises Violation."""
        for replica_id, host in self.hosts.items():
            host.was_draining = host.is_draining
            host.began_draining = not host.is_draining and replica_id in draining
            host.is_draining = replica_id in draining
        self._accounts.begin(now_ns)
        self._recount(now_ns)
        self.switch.recount(now_ns)
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
        failing = {
            model_id for model_id, _ in self._failed
            if self.blames[model_id].num_failures >= self._limits.max_start_failures
        }  # fmt: skip
        self.switch.end(decisions, failing)
        for seen in self.open.values():
            demand(seen.replica_id != "gone", "a request outlived its worker")
        for replica_id, host in self.hosts.items():
            before = self._num_parked_before.get(replica_id, 0)
            before += self._num_stalled_now + self.switch.num_failed
            most = max(self._limits.max_parked, before)
            demand(len(host.parked) <= most, f"{len(host.parked)} parked on {replica_id}")

    def _recount(self, now_ns: int) -> None:
        for host in self._now_up:
            host.up_ns = host.up_ns or now_ns
            host.ready_ns = now_ns
            self.longest_load_ns = max(self.longest_load_ns, now_ns - host.began_ns)
        for seen in self._now_stalled:
            seen.stalled_ns = (seen.stalled_ns or now_ns) if seen.is_stalled else None
        for model_id, dead in self._failed:
            if dead is None:
                self.blames[model_id].refused(now_ns, self._limits)
                continue
            ready_ns = 0 if dead.ready_ns is None else now_ns - dead.ready_ns
            is_proven = dead.has_served or ready_ns >= self._limits.healthy_ns
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
            waits = seen.model_id == model_id and seen.replica_id is None and self.is_queued(seen)
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
            if decision.error is not None and decision.error.code == "out_of_memory":
                self.lacking.pop(decision.model_id, None)
            demand(decision.model_id in self.wanted, "a model nobody asked for is there")
            self.wanted.discard(decision.model_id)
        elif isinstance(decision, do.LacksRoom):
            same = self.lacking.get(decision.model_id) == decision.reason
            demand(bool(decision.reason) and not same, "told again, or nothing")
            self.lacking[decision.model_id] = decision.reason
        elif isinstance(decision, do.StartReplica):
            self._start(decision, now_ns)
        elif isinstance(decision, do.StopReplica | do.ParkReplica | do.UnparkReplica):
            self._move(decision, now_ns)
        else:
            self.switch.see(decision, now_ns)

    def _move(
        self, decision: do.StopReplica | do.ParkReplica | do.UnparkReplica, now_ns: int
    ) -> None:
        host = self._host(decision.replica_id)
        demand(not host.is_stopping, "stopped twice, or moved when it was")
        if isinstance(decision, do.UnparkReplica):
            demand(host.is_parked, "brought back though it is not parked")
            held = {
                d: max(size, self.tally.held[d].get(decision.replica_id, 0))
                for d, size in self.tally.needs(host.model).items()
            }
            self.tally.give(decision.replica_id, held)
            self.lacking.pop(host.model_id, None)
            host.is_unparking, host.is_parked, host.began_ns = True, False, now_ns
            return
        demand(not host.requests, "stopped or parked with requests on it")
        is_ordered = host.was_draining or host.model_id in self.unpinned
        demand(host.model_id not in self.pinned or is_ordered, "a pinned model goes")
        if decision.reason.startswith("idle for"):
            spent_ns = now_ns - host.idle_since_ns
            demand(spent_ns >= self._limits.keep_alive_ns or host.model_id in self.keep_alive,
                   "stopped before its keep-alive")  # fmt: skip
        if isinstance(decision, do.StopReplica):
            host.is_stopping = True
        else:
            demand(host.takes_new or host.is_draining, "parked when it does not serve")
            demand(host.model.parks and self._limits.parking, "parked though it cannot be")
            host.is_parking = True

    def _accept(self, decision: do.Accept, now_ns: int) -> None:
        demand(decision.request_id in self._asked, "accepted what nobody asked")
        event = self._asked.pop(decision.request_id)
        seen = Seen(event.waiting, event.model, now_ns)
        self.open[decision.request_id] = seen
        self.num_accepted += 1
        self._accounts.accepted(decision, now_ns)
        self._order.join(seen)

    def _close(self, decision: do.Close, now_ns: int) -> None:
        request_id = decision.request_id
        demand(request_id in self.open, f"{request_id} ended twice, or was never accepted")
        demand(decision.event.request_id == request_id, "another request's terminal event")
        seen = self.open.pop(request_id)
        error = getattr(decision.event, "error", None)
        if error is not None and error.code == "model_too_large":
            self._judge_crowding(seen)
        if error is not None and error.code == "out_of_memory":
            self.lacking.pop(seen.model_id, None)
        if error is not None and error.code == "queue_full":
            self._judge_shedding(seen)
        self._order.leave(seen)
        self.num_closed += 1
        self._accounts.closed(decision, now_ns)
        self.switch.closed(seen)
        host = self.hosts.get(seen.replica_id or "")
        if host is not None:
            is_over = request_id in self._ended or seen.is_aborted or self._is_closing
            demand(is_over or request_id in self.switch.lost, "it ended, and goes on at its worker")
            for there in (host.running, host.parked, host.leaving):
                there.discard(request_id)
            host.idle_since_ns = now_ns

    def _judge_shedding(self, seen: Seen) -> None:
        """Only before its first row, and for one of a higher class."""
        demand(not seen.has_run, "shed after it had begun")
        kinds = [event.waiting.service_class for event in self._newcomers]
        demand(max(kinds, default=-1) > seen.waiting.service_class, "shed for nobody")

    def _judge_crowding(self, seen: Seen) -> None:
        """An accepted request fits an empty machine, so only pinned models can crowd it out."""
        others = [m for m in self.pinned.values() if m.model_id != seen.model_id]
        demand(
            any(
                size + sum(self.tally.needs(m).get(d, 0) for m in others) > self.tally.budgets[d]
                for d, size in self.tally.needs(seen.model).items()
            ),
            "refused memory that there is",
        )

    def _start(self, decision: do.StartReplica, now_ns: int) -> None:
        demand(decision.replica_id not in self.hosts, "a replica's name was used twice")
        model = decision.model
        not_before_ns = self._not_before_ns.get(model.model_id, 0)
        demand(now_ns >= not_before_ns, "started again too soon after a failure")
        for host in self.hosts.values():
            is_leaving = host.is_stopping or host.requests
            demand(host.model_id != model.model_id or bool(is_leaving), "a second replica starts")
        self.tally.give(decision.replica_id, self.tally.needs(model))
        self.lacking.pop(model.model_id, None)
        self.hosts[decision.replica_id] = Host(model, model.num_slots, now_ns, idle_since_ns=now_ns)

    def _host(self, replica_id: str) -> Host:
        demand(replica_id in self.hosts, f"{replica_id} does not exist")
        return self.hosts[replica_id]


_OF_REPLICAS = (
    ev.ReplicaUp,
    ev.ReplicaGone,
    ev.ReplicaRefused,
    ev.ReplicaMeasured,
    ev.ReplicaParked,
    ev.ReplicaUnparked,
)


def _is_away(host: Host) -> bool:
    return host.is_stopping or host.is_parking or host.is_parked or host.is_unparking


def _devices(model: ModelFacts) -> list[str]:
    return [HOST] if model.device == HOST else [HOST, model.device]
