"""Everything the core remembers."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from llmos.abi.policy import Policy
from llmos.kernel.core.cost import Backlog, CostModel, Fresh, LoadTimes, no_fresh
from llmos.kernel.core.decisions import Decision
from llmos.kernel.core.fault import Fault
from llmos.kernel.core.jobs import Board
from llmos.kernel.core.limits import Limits
from llmos.kernel.core.memory import Ledger
from llmos.kernel.core.replica import ModelFacts, Replica, ReplicaState
from llmos.kernel.core.request import Request

ALARM_GRID_NS = 50_000_000


@dataclass(slots=True)
class State:
    """Owned by one loop. `dirty` are models to schedule at the end of the step, `lacking` those
    that need a replica, and since when. `due` is a heap of when to look at a request again.

    Sets that are iterated are dicts: their order must not depend on the process's hash seed.
    """

    limits: Limits
    make_policy: Callable[[], Policy]
    ledger: Ledger
    jobs: Board
    requests: dict[str, Request] = field(default_factory=dict)
    replicas: dict[str, Replica] = field(default_factory=dict)
    models: dict[str, ModelFacts] = field(default_factory=dict)
    queues: dict[str, Policy] = field(default_factory=dict)
    costs: dict[str, CostModel] = field(default_factory=lambda: defaultdict(CostModel))
    loads: LoadTimes = field(default_factory=LoadTimes)
    backlogs: dict[str, Backlog] = field(default_factory=lambda: defaultdict(Backlog))
    fresh: Fresh = field(default_factory=no_fresh)
    open_of_tenant: dict[str, int] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=lambda: defaultdict(Fault))
    wanted: dict[str, None] = field(default_factory=dict)
    pinned: dict[str, None] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    dirty: dict[str, None] = field(default_factory=dict)
    timers: list[int] = field(default_factory=list)
    due: list[tuple[int, str]] = field(default_factory=list)
    alarms: set[int] = field(default_factory=set)
    num_waiting: int = 0
    num_replicas_made: int = 0
    draining: bool = False
    out: list[Decision] = field(default_factory=list)

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
    return State(limits, make_policy, Ledger(limits.memory_budget_bytes), Board(make_policy))
