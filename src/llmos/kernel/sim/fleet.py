"""The workers of one simulated machine, and the wire between them and its core."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from llmos.abi.events import Aborted, Finished, FinishReason
from llmos.abi.inference import Usage
from llmos.errors import DiskFull, EngineFailed, LoadFailed, NotFound, WorkerLost
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.holdings import HEADER_BYTES
from llmos.kernel.core.replica import ModelFacts
from llmos.kernel.sim.agenda import Agenda
from llmos.kernel.sim.calls import NS
from llmos.kernel.sim.demand import demand
from llmos.kernel.sim.faults import Life, draw_life
from llmos.kernel.sim.setup import Setup
from llmos.kernel.sim.truth import Truth
from llmos.kernel.sim.worker import Order, SimWorker


@dataclass(slots=True)
class Hosted:
    """A worker's process. `clear_ns`: its last message is delivered by then; none overtakes it."""

    worker: SimWorker
    life: Life
    model: ModelFacts
    is_up: bool = False
    is_dead: bool = False
    is_hung: bool = False
    is_to_park: bool = False
    is_parking: bool = False
    is_parked: bool = False
    clear_ns: int = 0


class Fleet:
    """Does what it is told, and says so through `feed`, sometimes late or twice."""

    def __init__(
        self,
        setup: Setup,
        agenda: Agenda,
        rng: random.Random,
        truth: Truth,
        *,
        feed: Callable[..., object],
    ) -> None:
        self._setup = setup
        self._agenda = agenda
        self._rng = rng
        self._truth = truth
        self._feed = feed
        self._workers: dict[str, Hosted] = {}
        self.injected: Counter[str] = Counter()

    def _draws(self, share: float, name: str) -> bool:
        if not share or self._rng.random() >= share:
            return False
        self.injected[name] += 1
        return True

    # what it is told

    def dispatch(self, decision: do.Dispatch) -> None:
        request_id, replica_id = decision.request_id, decision.replica_id
        work = self._truth.work(request_id, resumes=decision.resumes)
        hosted = self._workers.get(replica_id)
        if hosted is None:
            return
        demand(hosted.is_up and not hosted.is_parked, "dispatched to a worker that cannot run it")
        is_kept = request_id in self._truth.files
        if is_kept and self._draws(self._setup.faults.rots, "rots"):
            self._say(replica_id, ev.SnapshotLost(request_id, "drawn"))
            return
        hosted.worker.submit(request_id, work.prompt_left, work.output_left)
        self._go_on(replica_id)

    def pause(self, decision: do.PauseRow) -> None:
        if hosted := self._workers.get(decision.replica_id):
            hosted.worker.pause(decision.request_id)

    def unpause(self, decision: do.UnpauseRow) -> None:
        if hosted := self._workers.get(decision.replica_id):
            hosted.worker.unpause(decision.request_id)
            self._go_on(decision.replica_id)

    def abort(self, decision: do.AbortRow) -> None:
        self._order(decision.replica_id, Order(decision.request_id, decision.reason))

    def suspend(self, decision: do.SuspendRow) -> None:
        order = Order(decision.request_id, decision.reason, suspends=True, tier=decision.tier)
        self._order(decision.replica_id, order)

    def _order(self, replica_id: str, order: Order) -> None:
        if hosted := self._workers.get(replica_id):
            hosted.worker.order(order)
            self._go_on(replica_id)

    def start(self, decision: do.StartReplica) -> None:
        setup, replica_id = self._setup, decision.replica_id
        life = draw_life(self._rng, setup.faults, setup.fault_span_ns)
        hosted = Hosted(SimWorker(setup.cost, life.slowness), life, decision.model)
        self._workers[replica_id] = hosted
        load_ns = round(setup.load_ns * life.slowness)
        if life.dies_loading:
            lost = partial(self._crash, replica_id, "it crashed while it loaded")
            self._agenda.after(load_ns // 2, lost)
        self._agenda.after(load_ns, partial(self._loaded, replica_id, hosted))

    def stop(self, decision: do.StopReplica) -> None:
        if decision.replica_id in self._workers:
            self._agenda.after(self._setup.stop_ns, partial(self._die, decision.replica_id, None))

    def park(self, decision: do.ParkReplica) -> None:
        if hosted := self._workers.get(decision.replica_id):
            hosted.is_to_park = True
            self._go_on(decision.replica_id)

    def unpark(self, decision: do.UnparkReplica) -> None:
        if hosted := self._workers.get(decision.replica_id):
            demand(hosted.is_parked, "brought back though it is not parked")
            back = partial(self._unparked, decision.replica_id, hosted)
            self._agenda.after(round(self._setup.unpark_ns * hosted.life.slowness), back)

    # what workers do

    def _loaded(self, replica_id: str, hosted: Hosted) -> None:
        if hosted.is_dead:
            return
        life = hosted.life
        if life.is_refused:
            self.injected["refused"] += 1
            self._say(replica_id, ev.ReplicaRefused(replica_id, LoadFailed("drawn").to_info()))
            return
        hosted.is_up = True
        self.injected["slow"] += life.slowness > 1.0
        used = self._used(hosted.model, 0.9)
        self._say(replica_id, ev.ReplicaUp(replica_id, hosted.model.num_slots, *used))
        if life.crashes_ns is not None:
            lost = partial(self._crash, replica_id, "it crashed")
            self._agenda.after(life.crashes_ns, lost)
        if life.hangs_ns is not None:
            self._agenda.after(life.hangs_ns, partial(self._hang, replica_id))
        if life.swells_ns is not None:
            self._agenda.after(life.swells_ns, partial(self._swell, replica_id, hosted))

    @staticmethod
    def _used(model: ModelFacts, share: float) -> tuple[int, int]:
        """Of the host and of its device, in bytes."""
        return int(model.reserve_bytes * share), int(model.device_bytes * share)

    def _swell(self, replica_id: str, hosted: Hosted) -> None:
        if not (hosted.is_dead or hosted.is_to_park or hosted.is_hung):
            self.injected["swells"] += 1
            used = self._used(hosted.model, hosted.life.swollen)
            self._say(replica_id, ev.ReplicaMeasured(replica_id, *used))

    def _parked(self, replica_id: str, hosted: Hosted) -> None:
        if hosted.is_dead or hosted.is_hung:
            return
        if self._draws(self._setup.faults.refused, "refused"):
            hosted.is_to_park = hosted.is_parking = False
            error = EngineFailed("drawn").to_info()
            self._say(replica_id, ev.ReplicaParked(replica_id, 0, 0, error))
            return
        hosted.is_parked = True
        self._say(replica_id, ev.ReplicaParked(replica_id, hosted.model.parked_bytes))

    def _unparked(self, replica_id: str, hosted: Hosted) -> None:
        if hosted.is_dead or hosted.is_hung:
            return
        if self._draws(self._setup.faults.refused, "refused"):
            self._say(replica_id, ev.ReplicaRefused(replica_id, LoadFailed("drawn").to_info()))
            return
        hosted.is_parked = hosted.is_to_park = hosted.is_parking = False
        self._say(replica_id, ev.ReplicaUnparked(replica_id, *self._used(hosted.model, 0.9)))

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
        """Its process ends: whatever it said before is still delivered, and after this nothing but
        what is delivered twice."""
        hosted = self._workers.pop(replica_id, None)
        if hosted is not None:
            hosted.is_dead = True
            gone = ev.ReplicaGone(replica_id, None if why is None else WorkerLost(why).to_info())
            self._agenda.at(hosted.clear_ns, partial(self._feed, gone))

    def _go_on(self, replica_id: str) -> None:
        """Begin a step unless one is under way."""
        hosted = self._workers.get(replica_id)
        if hosted is None or hosted.is_hung or hosted.worker.is_stepping:
            return
        for order in hosted.worker.take_orders():
            if (answer := self._carry_out(hosted.worker, order)) is not None:
                self._say(replica_id, answer)
        spent_ns = hosted.worker.begin()
        if spent_ns:
            self._agenda.after(spent_ns, partial(self._stepped, replica_id, hosted))
        elif hosted.is_to_park and not hosted.is_parking:
            hosted.is_parking = True
            demand(not hosted.worker.rows, "parked with requests on it")
            parked_ns = round(self._setup.park_ns * hosted.life.slowness)
            self._agenda.after(parked_ns, partial(self._parked, replica_id, hosted))

    def _carry_out(self, worker: SimWorker, order: Order) -> ev.CoreEvent | None:
        """Between steps."""
        request_id = order.request_id
        if not order.suspends:
            if worker.forget(request_id):
                return ev.Ended(request_id, Aborted(request_id, order.reason))
            return None
        if request_id not in worker.rows:
            return ev.SuspendFailed(request_id, NotFound("it is not here").to_info())
        if order.tier is not None and self._draws(self._setup.faults.unsaved, "unsaved"):
            return ev.SuspendFailed(request_id, DiskFull("drawn").to_info())
        row = worker.put_away(request_id)
        if order.tier is None or request_id not in self._truth.calls:
            return ev.Suspended(request_id, None)
        self._truth.put_away(row)
        kv_bytes = self._truth.context(request_id) * self._setup.kv_bytes_per_token
        return ev.Suspended(request_id, kv_bytes + HEADER_BYTES // 2)

    def _stepped(self, replica_id: str, hosted: Hosted) -> None:
        if hosted.is_dead or hosted.is_hung:
            return
        made, ended = hosted.worker.finish()
        events: list[ev.CoreEvent] = []
        if made:
            events.append(ev.Progressed(replica_id, made))
            for request_id, num_tokens in made:
                self._truth.made(request_id, num_tokens)
        for request_id in ended:
            self._truth.finished(request_id)
            call = self._truth.calls.get(request_id)
            usage = Usage() if call is None else Usage(call.prompt_tokens, call.output_tokens)
            events.append(ev.Ended(request_id, Finished(request_id, FinishReason.STOP, usage)))
        if events:
            self._say(replica_id, *events)
        self._go_on(replica_id)

    def _say(self, replica_id: str, *events: ev.CoreEvent) -> None:
        """Deliver a worker's message: at once, late (and those behind it), or twice."""
        hosted = self._workers.get(replica_id)
        if hosted is None:
            return
        faults, now_ns = self._setup.faults, self._agenda.now_ns
        if not faults.are_any and now_ns >= hosted.clear_ns and hosted.is_up and _is_safe(events):
            self._feed(*events)
            return
        due_ns = max(now_ns, hosted.clear_ns)
        if faults.late and self._rng.random() < faults.late:
            due_ns += self._rng.randrange(2 * NS)
            self.injected["late"] += 1
        hosted.clear_ns = due_ns
        self._agenda.at(due_ns, lambda: self._feed(*events))
        if isinstance(events[0], _ONCE):
            return
        if faults.duplicate and self._rng.random() < faults.duplicate:
            self.injected["duplicate"] += 1
            self._agenda.at(due_ns + self._rng.randrange(NS), lambda: self._feed(*events))


_ONCE = (
    ev.Suspended,
    ev.SuspendFailed,
    ev.SnapshotLost,
    ev.ReplicaParked,
    ev.ReplicaUnparked,
    ev.ReplicaMeasured,
)
"""Answers to a question, which nobody gives twice."""


def _is_safe(events: Sequence[ev.CoreEvent]) -> bool:
    """What may be said while decisions are being applied waits: never inside the same turn."""
    return not isinstance(events[0], ev.Ended | ev.Suspended | ev.SuspendFailed | ev.SnapshotLost)
