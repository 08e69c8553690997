"""A whole run: calls in, through a front, to machines; what came of each, and the trace hash."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from llmos.abi.events import Failed, Finished
from llmos.abi.policy import Waiting
from llmos.abi.principal import ServiceClass
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.replica import HOST, ModelFacts
from llmos.kernel.sim.agenda import START_NS, Agenda
from llmos.kernel.sim.calls import NS, Call
from llmos.kernel.sim.demand import demand
from llmos.kernel.sim.fairness import Fairness
from llmos.kernel.sim.hashing import TraceHash
from llmos.kernel.sim.machine import Machine
from llmos.kernel.sim.setup import GIB, Setup

PATIENCE_NS = 3600 * NS


@dataclass(slots=True)
class Outcome:
    """What came of one call. `end`: finished, aborted, or an error's code."""

    call: Call
    arrived_ns: int
    machine: int
    first_ns: int | None = None
    ended_ns: int | None = None
    end: str = "open"
    num_tokens: int = 0
    num_preemptions: int = 0
    predicted_ns: float = 0.0
    predicted_wait_ns: float = 0.0
    dispatched_ns: int | None = None


@dataclass(slots=True)
class Ran:
    """The result of a run. `injected`: faults that came true, by name.

    `num_moves`: what was decided about replicas and snapshots, by its name. `loading_ns`: of all
    replicas together, until they were up or back.
    """

    setup: Setup
    outcomes: list[Outcome] = field(default_factory=list)
    hash: str = ""
    began_ns: int = START_NS
    ended_ns: int = START_NS
    row_ns: int = 0
    num_steps: int = 0
    num_moves: Counter[str] = field(default_factory=Counter)
    loading_ns: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    fairness: Fairness = field(default_factory=Fairness)


class Simulation:
    """Deterministic: everything drawn comes from `rng`, nothing from the clock or hash seed."""

    def __init__(self, setup: Setup, rng: random.Random) -> None:
        self._setup = setup
        self._rng = rng
        self._agenda = Agenda()
        self._hash = TraceHash() if setup.is_hashed else None
        self.ran = Ran(setup)
        self._open: dict[str, Outcome] = {}
        self._running_since: dict[str, int] = {}
        self._loading_since: dict[tuple[int, str], int] = {}
        self._num_arrivals = 0
        self._work_ns = 0
        self.machines = [
            Machine(
                i, setup, self._agenda, rng, trace_hash=self._hash, watch=partial(self._watch, i)
            )
            for i in range(setup.num_machines)
        ]

    def run(self, calls: Iterable[Call], progress: Callable[[int, int], None] | None = None) -> Ran:
        """To the end of every call. `progress` gets the numbers of arrived and ended ones.

        Raises Violation, also when something accepted does not end within `PATIENCE_NS` and ten
        times what all work would take one after another.
        """
        source = iter(calls)
        self._plan_arrival(source)
        num_turns = 0
        while self._open or self._is_arriving:
            demand(len(self._agenda) > 0, "requests wait and nothing will happen")
            self._agenda.next()()
            num_turns += 1
            if progress is not None and num_turns % 2000 == 0:
                progress(self._num_arrivals, self._num_arrivals - len(self._open))
            if not self._is_arriving:
                spent_ns = self._agenda.now_ns - self._last_arrival_ns
                demand(spent_ns <= PATIENCE_NS + 10 * self._work_ns, "starved")
        return self._finish()

    def _finish(self) -> Ran:
        if self._setup.check_every:
            for machine in self.machines:
                machine.check()
        ran = self.ran
        ran.ended_ns = self._agenda.now_ns
        ran.hash = self._hash.hex if self._hash is not None else ""
        for machine in self.machines:
            ran.injected.update(machine.injected)
        ran.fairness.close(self._agenda.now_ns)
        return ran

    # arrivals

    def _plan_arrival(self, source: Iterable[Call]) -> None:
        call = next(iter(source), None)
        self._is_arriving = call is not None
        self._last_arrival_ns = self._agenda.now_ns
        if call is not None:
            self._agenda.at(START_NS + call.at_ns, partial(self._arrive, call, source))

    def _arrive(self, call: Call, source: Iterable[Call]) -> None:
        self._num_arrivals += 1
        machine = min(self.machines, key=lambda m: (len(m.state.requests), m.number))
        request_id = f"req_{self._num_arrivals}"
        outcome = Outcome(call, self._agenda.now_ns, machine.number)
        self._open[request_id] = outcome
        self.ran.outcomes.append(outcome)
        cost = self._setup.cost
        self._work_ns += (cost.fixed_ns + cost.per_row_ns) * (call.output_tokens + 1)
        self._work_ns += (cost.fixed_ns // cost.chunk_tokens + cost.per_prompt_ns) * (
            call.prompt_tokens + 1
        )
        machine.arrive(call, self._arrived(request_id, call))
        if self._setup.faults.are_any and request_id in self._open:
            self._plan_whims(machine, request_id, call.model)
        self._plan_arrival(source)

    def _arrived(self, request_id: str, call: Call) -> ev.Arrived:
        now_ns = self._agenda.now_ns
        waiting = Waiting(
            request_id=request_id,
            arrival=self._num_arrivals,
            ready_ns=now_ns,
            service_class=call.service_class,
            nice=call.nice,
            tenant_id=call.tenant,
            principal_id=call.principal or call.tenant,
            weight=call.weight,
            prompt_tokens=call.prompt_tokens,
            expected_tokens=0,
        )
        deadline_ns = None if call.deadline_ns is None else now_ns + call.deadline_ns
        return ev.Arrived(waiting, self._facts(call.model), call.max_tokens, deadline_ns)

    def _facts(self, model: str) -> ModelFacts:
        reserve_bytes = self._setup.model_bytes.get(model, GIB)
        setup = self._setup
        on_device = reserve_bytes // 2 if setup.device != HOST else 0
        return ModelFacts(
            f"mdl_{model}",
            f"{model}:1",
            reserve_bytes,
            setup.num_slots,
            kv_bytes_per_token=setup.kv_bytes_per_token,
            snapshots=setup.snapshots,
            parks=setup.parks,
            device=setup.device,
            device_bytes=on_device,
            parked_bytes=setup.parked_bytes,
        )

    def _plan_whims(self, machine: Machine, request_id: str, model: str) -> None:
        """A client that leaves, stops reading (and perhaps reads again), or changes its mind."""
        rng, faults, agenda = self._rng, self._setup.faults, self._agenda
        span_ns = self._setup.fault_span_ns
        if rng.random() < faults.leaves:
            self.ran.injected["leaves"] += 1
            left = ev.Cancelled(request_id, "the client left")
            agenda.after(rng.randrange(span_ns), partial(machine.feed, left))
        if rng.random() < faults.stalls:
            self.ran.injected["stalls"] += 1
            stalled_ns = rng.randrange(span_ns)
            agenda.after(stalled_ns, partial(machine.feed, ev.ReaderStalled(request_id)))
            if rng.random() < 0.7:
                back_ns = stalled_ns + rng.randrange(2 * self._setup.limits.stall_timeout_ns)
                agenda.after(back_ns, partial(machine.feed, ev.ReaderResumed(request_id)))
        if rng.random() < faults.renices:
            self.ran.injected["renices"] += 1
            kind = rng.choice([None, *ServiceClass])
            reniced = ev.Reniced(request_id, rng.randrange(-20, 20), kind)
            agenda.after(rng.randrange(span_ns), partial(machine.feed, reniced))
        self._plan_orders(machine, request_id, model)

    def _plan_orders(self, machine: Machine, request_id: str, model: str) -> None:
        """An operator, who holds a request and mostly lets it go on, or moves its model; and
        others on the machine."""
        rng, faults, agenda = self._rng, self._setup.faults, self._agenda
        span_ns = self._setup.fault_span_ns
        if rng.random() < faults.holds:
            self.ran.injected["holds"] += 1
            held_ns = rng.randrange(span_ns)
            end_ns = held_ns + rng.randrange(2 * span_ns)
            held = ev.RequestHeld(request_id, "an operator holds it")
            agenda.after(held_ns, partial(machine.feed, held))
            is_released = rng.random() < 0.8
            released = ev.RequestReleased(request_id)
            ends = released if is_released else ev.Cancelled(request_id, "an operator ends it")
            agenda.after(end_ns, partial(machine.feed, ends))
        if rng.random() < faults.moves:
            self.ran.injected["moves"] += 1
            facts = self._facts(model)
            moves = (
                ev.ModelUnwanted(facts.model_id),
                ev.ModelUnpinned(facts.model_id),
                ev.ModelWanted(facts, pin=False),
                ev.ModelWanted(facts, pin=False, keep_alive_ns=rng.choice([0, span_ns])),
                ev.ModelWanted(facts, pin=True, is_standing=True),
            )
            agenda.after(rng.randrange(span_ns), partial(machine.feed, rng.choice(moves)))
        if rng.random() < faults.short:
            most = 2 * self._setup.limits.memory_budget_bytes
            machine.press(rng.randrange(most), rng.randrange(1, 2 * span_ns))

    # what happened

    def _watch(
        self,
        number: int,
        events: Sequence[ev.CoreEvent],
        decisions: Sequence[do.Decision],
        now_ns: int,
    ) -> None:
        self.ran.num_steps += 1
        for event in events:
            if isinstance(event, ev.Progressed):
                self._progressed(number, event, now_ns)
            elif isinstance(event, ev.ReplicaUp | ev.ReplicaUnparked | ev.ReplicaGone):
                since_ns = self._loading_since.pop((number, event.replica_id), now_ns)
                self.ran.loading_ns += now_ns - since_ns
        for decision in decisions:
            if isinstance(decision, _MOVES):
                self.ran.num_moves[type(decision).__name__] += 1
                if isinstance(decision, do.StartReplica | do.UnparkReplica):
                    self._loading_since[number, decision.replica_id] = now_ns
                elif isinstance(decision, do.StopReplica) and "makes room" in decision.reason:
                    self.ran.num_moves["Evicted"] += 1
            outcome = self._open.get(getattr(decision, "request_id", ""))
            if outcome is not None:
                self._decided(number, decision, outcome, now_ns)

    def _progressed(self, number: int, event: ev.Progressed, now_ns: int) -> None:
        for request_id, num_tokens in event.tokens:
            outcome = self._open.get(request_id)
            if outcome is None:
                continue
            if outcome.first_ns is None:
                outcome.first_ns = now_ns
            outcome.num_tokens += num_tokens
            self.ran.fairness.serve(number, outcome.call, num_tokens, now_ns)

    def _decided(self, number: int, decision: do.Decision, outcome: Outcome, now_ns: int) -> None:
        fairness, call = self.ran.fairness, outcome.call
        if isinstance(decision, do.Accept):
            outcome.predicted_ns = decision.service_ns
            outcome.predicted_wait_ns = decision.wait_ns
            fairness.wait(number, call, now_ns)
        elif isinstance(decision, do.Dispatch | do.UnpauseRow):
            if outcome.dispatched_ns is None:
                outcome.dispatched_ns = now_ns
                fairness.serve(number, call, call.prompt_tokens / 2, now_ns)
            if decision.request_id not in self._running_since:  # else it is only computed again
                fairness.run(number, call, now_ns)
                self._running_since[decision.request_id] = now_ns
        elif isinstance(decision, do.PauseRow):
            outcome.num_preemptions += decision.kind is do.Pause.PREEMPTED
            fairness.wait(number, call, now_ns)
            self._left_row(decision.request_id, now_ns)
        elif isinstance(decision, do.Requeue | do.HoldRequest):
            if self._left_row(decision.request_id, now_ns):  # its worker died
                fairness.wait(number, call, now_ns)
        elif isinstance(decision, do.Close):
            if not self._left_row(decision.request_id, now_ns):
                fairness.run(number, call, now_ns)
            _close(outcome, decision, now_ns)
            del self._open[decision.request_id]
        elif isinstance(decision, do.Refuse):
            outcome.end, outcome.ended_ns = decision.error.code, now_ns
            del self._open[decision.request_id]

    def _left_row(self, request_id: str, now_ns: int) -> bool:
        since_ns = self._running_since.pop(request_id, None)
        if since_ns is None:
            return False
        self.ran.row_ns += now_ns - since_ns
        return True


_MOVES = (
    *(do.StartReplica, do.StopReplica, do.ParkReplica, do.UnparkReplica),
    *(do.SuspendRow, do.SpillSnapshot),
)


def _close(outcome: Outcome, decision: do.Close, now_ns: int) -> None:
    outcome.ended_ns = now_ns
    if isinstance(decision.event, Finished):
        outcome.end = "finished"
    elif isinstance(decision.event, Failed):
        outcome.end = decision.event.error.code
    else:
        outcome.end = "aborted"
