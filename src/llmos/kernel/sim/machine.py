"""One simulated machine: a core, its workers, and the wire between them, which may misbehave."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from llmos.abi.events import Aborted, Finished, FinishReason
from llmos.abi.inference import Usage
from llmos.errors import LoadFailed, WorkerLost
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.state import initial
from llmos.kernel.core.step import step
from llmos.kernel.sim import books
from llmos.kernel.sim.agenda import Agenda
from llmos.kernel.sim.calls import NS, Call
from llmos.kernel.sim.faults import Life, draw_life
from llmos.kernel.sim.hashing import TraceHash
from llmos.kernel.sim.setup import Setup
from llmos.kernel.sim.witness import RULES, Witness, demand
from llmos.kernel.sim.worker import SimWorker

Watcher = Callable[[Sequence[ev.CoreEvent], Sequence[do.Decision], int], None]


@dataclass(slots=True)
class Hosted:
    """A worker's process. `clear_ns`: its last message is delivered by then; none overtakes it."""

    worker: SimWorker
    life: Life
    reserve_bytes: int
    num_slots: int
    is_up: bool = False
    is_dead: bool = False
    is_hung: bool = False
    clear_ns: int = 0


class Machine:
    """Feeds its core and carries out what it decides."""

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
        self._calls: dict[str, Call] = {}
        self._workers: dict[str, Hosted] = {}
        self._tick_ns: int | None = None
        self._ticked_ns = 0
        self._num_ticks_now = 0
        self._num_steps = 0
        self.injected: Counter[str] = Counter()
        self._rule = RULES.get(setup.policy)
        self.state = initial(setup.limits, lambda: setup.make_policy(setup.tuning))
        self.witness = Witness(setup.limits, self._rule, setup.tuning.nice_step_ns)
        self._appliers: dict[type, Callable[..., None]] = {
            do.Dispatch: self._dispatch,
            do.PauseRow: self._pause,
            do.UnpauseRow: self._unpause,
            do.AbortRow: self._abort,
            do.Close: self._close,
            do.StartReplica: self._start,
            do.StopReplica: self._stop,
        }

    def arrive(self, call: Call, event: ev.Arrived) -> None:
        """A call of a client, as the core sees it."""
        self._calls[event.waiting.request_id] = call
        expected = books.expected(self.state, event, self._rule, self._agenda.now_ns)
        decisions = self.feed(event)
        books.check_answer(expected, event, decisions[0])
        if event.waiting.request_id not in self.state.requests:
            self._calls.pop(event.waiting.request_id, None)

    def feed(self, *events: ev.CoreEvent) -> list[do.Decision]:
        """One turn of the kernel's loop. Raises Violation."""
        now_ns = self._agenda.now_ns
        self.witness.told(events)
        decisions = step(self.state, events, now_ns)
        if self._hash is not None:
            self._hash.add(self.number, now_ns, events, decisions)
        self.witness.saw(decisions, now_ns)
        self._watch(events, decisions, now_ns)
        for decision in decisions:
            applier = self._appliers.get(type(decision))
            if applier is not None:
                applier(decision)
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

    # what the core decided

    def _dispatch(self, decision: do.Dispatch) -> None:
        call, replica_id = self._calls[decision.request_id], decision.replica_id
        output = call.output_tokens
        if call.max_tokens:
            output = min(output, call.max_tokens)
        self._workers[replica_id].worker.submit(decision.request_id, call.prompt_tokens, output)
        self._go_on(replica_id)

    def _pause(self, decision: do.PauseRow) -> None:
        self._workers[decision.replica_id].worker.pause(decision.request_id)

    def _unpause(self, decision: do.UnpauseRow) -> None:
        self._workers[decision.replica_id].worker.unpause(decision.request_id)
        self._go_on(decision.replica_id)

    def _abort(self, decision: do.AbortRow) -> None:
        self._workers[decision.replica_id].worker.abort(decision.request_id, decision.reason)
        self._go_on(decision.replica_id)

    def _close(self, decision: do.Close) -> None:
        self._calls.pop(decision.request_id, None)

    def _start(self, decision: do.StartReplica) -> None:
        setup, model = self._setup, decision.model
        life = draw_life(self._rng, setup.faults, setup.fault_span_ns)
        worker = SimWorker(setup.cost, life.slowness)
        hosted = Hosted(worker, life, model.reserve_bytes, model.num_slots)
        self._workers[decision.replica_id] = hosted
        load_ns = round(setup.load_ns * life.slowness)
        if life.dies_loading:
            lost = partial(self._crash, decision.replica_id, "it crashed while it loaded")
            self._agenda.after(load_ns // 2, lost)
        self._agenda.after(load_ns, partial(self._loaded, decision.replica_id))

    def _stop(self, decision: do.StopReplica) -> None:
        if decision.replica_id in self._workers:
            self._agenda.after(self._setup.stop_ns, partial(self._die, decision.replica_id, None))

    # what workers do

    def _loaded(self, replica_id: str) -> None:
        hosted = self._workers.get(replica_id)
        if hosted is None or hosted.is_dead:
            return
        life = hosted.life
        if life.is_refused:
            self.injected["refused"] += 1
            self._say(replica_id, ev.ReplicaRefused(replica_id, LoadFailed("drawn").to_info()))
            return
        hosted.is_up = True
        self.injected["slow"] += life.slowness > 1.0
        used_bytes = hosted.reserve_bytes * 9 // 10
        self._say(replica_id, ev.ReplicaUp(replica_id, hosted.num_slots, used_bytes))
        if life.crashes_ns is not None:
            lost = partial(self._crash, replica_id, "it crashed")
            self._agenda.after(life.crashes_ns, lost)
        if life.hangs_ns is not None:
            self._agenda.after(life.hangs_ns, partial(self._hang, replica_id))

    def _hang(self, replica_id: str) -> None:
        if hosted := self._workers.get(replica_id):
            hosted.is_hung = True
            self.injected["hung"] += 1
            killed = partial(self._die, replica_id, "it did not answer and was killed")
            self._agenda.after(self._setup.probe_timeout_ns, killed)

    def _crash(self, replica_id: str, why: str) -> None:
        self.injected["crashed"] += replica_id in self._workers
        self._die(replica_id, why)

    def _die(self, replica_id: str, why: str | None) -> None:
        """Its process ends: whatever it said before is still delivered, and after this nothing."""
        hosted = self._workers.pop(replica_id, None)
        if hosted is not None:
            hosted.is_dead = True
            error = None if why is None else WorkerLost(why).to_info()
            self.feed(ev.ReplicaGone(replica_id, error))

    def _go_on(self, replica_id: str) -> None:
        """Begin a step unless one is under way."""
        hosted = self._workers.get(replica_id)
        if hosted is None or hosted.is_hung or hosted.worker.is_stepping:
            return
        worker = hosted.worker
        if worker.aborting:
            self._say(
                replica_id,
                *(ev.Ended(r, Aborted(r, why)) for r, why in worker.take_aborts().items()),
            )
        spent_ns = worker.begin()
        if spent_ns:
            self._agenda.after(spent_ns, partial(self._stepped, replica_id, hosted))

    def _stepped(self, replica_id: str, hosted: Hosted) -> None:
        if hosted.is_dead or hosted.is_hung:
            return
        made, ended = hosted.worker.finish()
        events: list[ev.CoreEvent] = []
        if made:
            events.append(ev.Progressed(replica_id, made))
        for request_id in ended:
            call = self._calls.get(request_id)
            usage = Usage() if call is None else Usage(call.prompt_tokens, call.output_tokens)
            events.append(ev.Ended(request_id, Finished(request_id, FinishReason.STOP, usage)))
        if events:
            self._say(replica_id, *events)
        self._go_on(replica_id)

    def _say(self, replica_id: str, *events: ev.CoreEvent) -> None:
        """Deliver a worker's message: at once, late (and those behind it), or twice."""
        hosted, faults, now_ns = self._workers[replica_id], self._setup.faults, self._agenda.now_ns
        if not faults.are_any and now_ns >= hosted.clear_ns and hosted.is_up and _is_safe(events):
            self.feed(*events)
            return
        due_ns = max(now_ns, hosted.clear_ns)
        if faults.late and self._rng.random() < faults.late:
            due_ns += self._rng.randrange(2 * NS)
            self.injected["late"] += 1
        hosted.clear_ns = due_ns
        self._agenda.at(due_ns, lambda: self.feed(*events))
        if faults.duplicate and self._rng.random() < faults.duplicate:
            self.injected["duplicate"] += 1
            self._agenda.at(due_ns + self._rng.randrange(NS), lambda: self.feed(*events))


def _is_safe(events: Sequence[ev.CoreEvent]) -> bool:
    """An abort is answered while decisions are being applied: never inside the same turn."""
    return not any(isinstance(e, ev.Ended) and isinstance(e.event, Aborted) for e in events)
