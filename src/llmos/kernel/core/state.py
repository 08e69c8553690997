"""Everything the core remembers."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llmos.abi.policy import Policy
from llmos.kernel.core.cost import Backlog, CostModel, Fresh, LoadTimes, no_fresh
from llmos.kernel.core.decisions import Decision
from llmos.kernel.core.fault import Fault
from llmos.kernel.core.jobs import Board
from llmos.kernel.core.ledger import Ledger
from llmos.kernel.core.limits import Limits
from llmos.kernel.core.replica import HOST, ModelFacts, Replica, ReplicaState
from llmos.kernel.core.request import Request
from llmos.kernel.core.reuse import Demand

ALARM_GRID_NS = 50_000_000


@dataclass(slots=True)
class State:
    """Owned by one loop. `dirty` are models to schedule at the end of the step, `lacking` those
    that need a replica, and since when. `due` is a heap of when to look at a request again.
    `ledgers` are by device, `headroom` what was measured of each since bytes were last given out or
    came back; a device that was never measured is as its ledger says. `learned` is what a loaded
    model was found to need, by device, `parked` what it kept of the host, `lack_reason` what was
    last said of why a model waits for room, `keep_alive` what was asked for a model by hand.
    `pinning` are models that are to be pinned once they are there. `moved_ns`: when room was last
    begun to be made, or used. `num_short`: how often in a row the machine was short of memory.
    `first` are queued requests, by model, that are next in their class.

    Sets that are iterated are dicts: their order must not depend on the process's hash seed.
    """

    limits: Limits
    make_policy: Callable[[], Policy]
    ledgers: dict[str, Ledger]
    jobs: Board
    requests: dict[str, Request] = field(default_factory=dict)
    replicas: dict[str, Replica] = field(default_factory=dict)
    models: dict[str, ModelFacts] = field(default_factory=dict)
    queues: dict[str, Policy] = field(default_factory=dict)
    costs: dict[str, CostModel] = field(default_factory=lambda: defaultdict(CostModel))
    loads: LoadTimes = field(default_factory=LoadTimes)
    unparks: LoadTimes = field(default_factory=lambda: LoadTimes(0.2))
    backlogs: dict[str, Backlog] = field(default_factory=lambda: defaultdict(Backlog))
    fresh: Fresh = field(default_factory=no_fresh)
    open_of_tenant: dict[str, int] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=lambda: defaultdict(Fault))
    wanted: dict[str, None] = field(default_factory=dict)
    pinned: dict[str, None] = field(default_factory=dict)
    pinning: dict[str, None] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    dirty: dict[str, None] = field(default_factory=dict)
    timers: list[int] = field(default_factory=list)
    due: list[tuple[int, str]] = field(default_factory=list)
    alarms: set[int] = field(default_factory=set)
    headroom: dict[str, int] = field(default_factory=dict)
    learned: dict[str, dict[str, int]] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)
    lack_reason: dict[str, str] = field(default_factory=dict)
    first: dict[str, dict[str, None]] = field(default_factory=dict)
    keep_alive: dict[str, int] = field(default_factory=dict)
    demand: Demand = field(default_factory=Demand)
    snapshot_memory_bytes: int = 0
    moved_ns: int = 0
    num_short: int = 0
    num_waiting: int = 0
    num_replicas_made: int = 0
    draining: bool = False
    out: list[Decision] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        """Of the host."""
        return self.ledgers[HOST]

    def free_bytes(self, device: str) -> int:
        """What may be given out: by the ledger, and as far as it was measured to be there."""
        free_bytes = self.ledgers[device].free_bytes
        return min(free_bytes, self.headroom.get(device, free_bytes))

    def know(self, model: ModelFacts) -> None:
        """As it will be loaded next; what was found of it in another form does not hold."""
        before = self.models.get(model.model_id)
        if before is not None and before.form != model.form:
            self.learned.pop(model.model_id, None)
            self.parked.pop(model.model_id, None)
        self.models[model.model_id] = model

    def is_known(self, model: ModelFacts) -> bool:
        """Whether what is found of a replica with these facts holds for the next one."""
        return self.models.get(model.model_id, model).form == model.form

    def needs(self, model: ModelFacts) -> dict[str, int]:
        """By device, what a replica of it needs: estimated, or as it was found to need."""
        return self.learned.get(model.model_id) or model.needs

    def parked_bytes(self, model: ModelFacts) -> int:
        """Of the host, what a parked replica of it keeps."""
        return self.parked.get(model.model_id, model.parked_bytes)

    def reserved_of(self, replica: Replica) -> int:
        """Of the host, with what its paused requests keep beside the rows."""
        on_host = replica.model.device == HOST
        kv = (f"kv:{r}" for r in (*replica.parked, *replica.leaving)) if on_host else ()
        return self.ledger.holds(replica.replica_id) + sum(map(self.ledger.holds, kv))

    def reserve(self, owner: str, needs: Mapping[str, int]) -> None:
        """By device. What is given out is not there any more until the next measurement."""
        for device, size in needs.items():
            self.ledgers[device].reserve(owner, size)
            self._take(device, size)

    def grow(self, owner: str, needs: Mapping[str, int]) -> None:
        """To these sizes, by device."""
        for device, size in needs.items():
            ledger = self.ledgers[device]
            self._take(device, size - ledger.holds(owner))
            ledger.grow(owner, size)

    def swell(self, owner: str, needs: Mapping[str, int]) -> None:
        """To these sizes, which it takes already, whether they fit or not."""
        for device, size in needs.items():
            ledger = self.ledgers[device]
            self._take(device, max(0, size - ledger.holds(owner)))
            ledger.swell(owner, size)

    def resize(self, owner: str, device: str, size: int) -> None:
        """To what was measured, be it less or more."""
        ledger = self.ledgers[device]
        if size > ledger.holds(owner):
            self.swell(owner, {device: size})
        else:
            ledger.shrink(owner, size)

    def release(self, owner: str) -> int:
        """On every device; how many bytes of the host that were."""
        freed = {
            device: ledger.release(owner)
            for device, ledger in self.ledgers.items()
            if owner in ledger.owners()
        }
        return freed.get(HOST, 0)

    def _take(self, device: str, size: int) -> None:
        if device in self.headroom:
            self.headroom[device] -= size

    def queue(self, model_id: str) -> Policy:
        """The model's own queue."""
        queue = self.queues.get(model_id)
        if queue is None:
            queue = self.queues[model_id] = self.make_policy()
        return queue

    def replicas_of(self, model_id: str) -> list[Replica]:
        return [r for r in self.replicas.values() if r.model.model_id == model_id]

    def wake_at(self, due_ns: int) -> None:
        """Ask for a `Tick` at or soon after this time; a spurious one does no harm.

        Alarms are rounded up to a grid, so that thousands of requests share one.
        """
        due_ns = -(-due_ns // ALARM_GRID_NS) * ALARM_GRID_NS
        if due_ns not in self.alarms:
            self.alarms.add(due_ns)
            heapq.heappush(self.timers, due_ns)

    def look_at(self, request_id: str, due_ns: int) -> None:
        """Have `expire` look at the request then. Compacts when most of it is of ended ones."""
        if len(self.due) > 64 and len(self.due) > 2 * len(self.requests):
            self.due = [entry for entry in self.due if entry[1] in self.requests]
            heapq.heapify(self.due)
        heapq.heappush(self.due, (due_ns, request_id))
        self.wake_at(due_ns)

    def next_due_ns(self) -> int | None:
        return self.timers[0] if self.timers else None

    def is_idle(self, replica: Replica) -> bool:
        """Ready, and nobody runs on it or waits for it."""
        return (
            replica.state is ReplicaState.READY
            and replica.is_empty
            and not len(self.queue(replica.model.model_id))
        )


def initial(limits: Limits, make_policy: Callable[[], Policy]) -> State:
    """An empty machine; `make_policy` is called once per model."""
    budgets = {HOST: limits.memory_budget_bytes, **dict(limits.device_budgets)}
    ledgers = {device: Ledger(size) for device, size in budgets.items()}
    return State(limits, make_policy, ledgers, Board(make_policy))
