"""One simulated machine: a core, what it is told, and what it decides, handed on and watched."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from llmos.errors import DiskFull
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.state import initial
from llmos.kernel.core.step import step
from llmos.kernel.sim import books
from llmos.kernel.sim.agenda import Agenda
from llmos.kernel.sim.calls import Call
from llmos.kernel.sim.demand import demand
from llmos.kernel.sim.fleet import Fleet
from llmos.kernel.sim.hashing import TraceHash
from llmos.kernel.sim.order import RULES
from llmos.kernel.sim.rooms import draining
from llmos.kernel.sim.setup import Setup
from llmos.kernel.sim.truth import Truth
from llmos.kernel.sim.witness import Witness

Watcher = Callable[[Sequence[ev.CoreEvent], Sequence[do.Decision], int], None]


class Machine:
    """Feeds its core and has carried out what it decides."""

    def __init__(
        self,
        number: int,
        setup: Setup,
        agenda: Agenda,
        rng: random.Random,
        *,
        trace_hash: TraceHash | None,
        watch: Watcher,
    ) -> None:
        self.number = number
        self._setup = setup
        self._agenda = agenda
        self._rng = rng
        self._hash = trace_hash
        self._watch = watch
        self._truth = Truth()
        self._fleet = Fleet(setup, agenda, rng, self._truth, feed=self.feed)
        self._tick_ns: int | None = None
        self._ticked_ns = 0
        self._num_ticks_now = 0
        self._num_steps = 0
        self._taken: dict[str, int] = {}
        self._is_measuring = False
        self._is_feeding = False
        self.injected: Counter[str] = self._fleet.injected
        self._rule = RULES.get(setup.policy)
        self.state = initial(setup.limits, lambda: setup.make_policy(setup.tuning))
        self.witness = Witness(setup.limits, self._rule, setup.tuning.nice_step_ns)
        self.witness.is_faultless = not setup.faults.are_any
        fleet = self._fleet
        self._appliers: dict[type, Callable[..., None]] = {
            do.Dispatch: fleet.dispatch,
            do.PauseRow: fleet.pause,
            do.UnpauseRow: fleet.unpause,
            do.AbortRow: fleet.abort,
            do.SuspendRow: fleet.suspend,
            do.StartReplica: fleet.start,
            do.StopReplica: fleet.stop,
            do.ParkReplica: fleet.park,
            do.UnparkReplica: fleet.unpark,
            do.SpillSnapshot: self._spill,
            do.DropSnapshot: lambda decision: self._truth.drop(decision.request_id),
            do.Close: lambda decision: self._truth.close(decision.request_id),
        }

    def arrive(self, call: Call, event: ev.Arrived) -> None:
        """A call of a client, as the core sees it."""
        self._truth.calls[event.waiting.request_id] = call
        expected = books.expected(self.state, event, self._rule, self._agenda.now_ns)
        decisions = self.feed(event)
        books.check_answer(expected, event, decisions[0])
        if isinstance(decisions[0], do.Refuse):
            self._truth.close(event.waiting.request_id)

    def feed(self, *events: ev.CoreEvent) -> list[do.Decision]:
        """One turn of the kernel's loop. Raises Violation."""
        demand(not self._is_feeding, "the simulator feeds while it feeds")
        now_ns = self._agenda.now_ns
        self._is_feeding = True
        self.witness.told(events)
        for event in events:
            if isinstance(event, ev.Suspended):
                self._truth.heard(event.request_id)
        decisions = step(self.state, events, now_ns)
        if self._hash is not None:
            self._hash.add(self.number, now_ns, events, decisions)
        self.witness.saw(decisions, now_ns, draining(self.state))
        self._watch(events, decisions, now_ns)
        for decision in decisions:
            applier = self._appliers.get(type(decision))
            if applier is not None:
                applier(decision)
        self._is_feeding = False
        self._num_steps += 1
        every = self._setup.check_every
        if every and self._num_steps % every == 0:
            self.check()
        self._arm()
        return decisions

    def check(self) -> None:
        """Look into the books now."""
        books.check(self.state, self.witness, self._rule, self._setup.tuning, self._agenda.now_ns)

    def _arm(self) -> None:
        due_ns = self.state.next_due_ns()
        if due_ns is not None and (self._tick_ns is None or due_ns < self._tick_ns):
            self._tick_ns = due_ns
            self._agenda.at(due_ns, partial(self._tick, due_ns))

    def _tick(self, due_ns: int) -> None:
        """A core that asks for a tick at once after every tick would keep its kernel busy."""
        if due_ns != self._tick_ns:  # an earlier one was asked for meanwhile
            return
        now_ns = self._agenda.now_ns
        self._num_ticks_now = self._num_ticks_now + 1 if now_ns == self._ticked_ns else 1
        demand(self._num_ticks_now <= 3, "the core asks for ticks without end")
        self._ticked_ns = now_ns
        self._tick_ns = None
        self.feed(ev.Tick())

    def _spill(self, decision: do.SpillSnapshot) -> None:
        """A file that is to be moved, or cannot be."""
        is_unsaved = self._rng.random() < self._setup.faults.unsaved
        self.injected["unsaved"] += is_unsaved
        error = DiskFull("drawn").to_info() if is_unsaved else None
        spilled = partial(self.feed, ev.Spilled(decision.request_id, error))
        self._agenda.after(self._setup.spill_ns, spilled)

    # the memory of the machine, of which others take some

    def press(self, size_bytes: int, for_ns: int) -> None:
        """Others on this machine take so much for a while; from then on it is measured."""
        self.injected["short"] += 1
        name = str(self.injected["short"])
        self._taken[name] = size_bytes
        self._agenda.after(for_ns, partial(self._taken.pop, name))
        if not self._is_measuring:
            self._is_measuring = True
            self._measure()

    def _measure(self) -> None:
        """What nobody has, and nobody was promised."""
        taken = sum(self._taken.values())
        free = {d: ledger.free_bytes - taken for d, ledger in self.state.ledgers.items()}
        self.feed(ev.MemoryMeasured(free))
        self._agenda.after(self._setup.measure_ns, self._measure)
