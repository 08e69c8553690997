"""A replica as the core sees it, and the only ways its state may change."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class ReplicaState(enum.StrEnum):
    """STARTING → READY → DRAINING → STOPPING → gone; a death may come in any state."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"


TRANSITIONS: dict[ReplicaState, frozenset[ReplicaState]] = {
    ReplicaState.STARTING: frozenset({ReplicaState.READY, ReplicaState.STOPPING}),
    ReplicaState.READY: frozenset({ReplicaState.DRAINING, ReplicaState.STOPPING}),
    ReplicaState.DRAINING: frozenset({ReplicaState.STOPPING}),
    ReplicaState.STOPPING: frozenset(),
}


LEAVING = (ReplicaState.DRAINING, ReplicaState.STOPPING)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the core needs to know of a model version to place it. `reserve_bytes`: upper bound."""

    model_id: str
    ref: str
    reserve_bytes: int
    num_slots: int


@dataclass(slots=True)
class Replica:
    """`running` hold a row (stopping ones do), `parked` keep their KV without one."""

    replica_id: str
    model: ModelFacts
    reserved_bytes: int
    since_ns: int
    keep_alive_ns: int
    num_slots: int
    state: ReplicaState = ReplicaState.STARTING
    running: dict[str, None] = field(default_factory=dict)
    parked: dict[str, None] = field(default_factory=dict)
    idle_since_ns: int = 0
    ready_ns: int = 0
    served: bool = False
    reason: str = ""

    @property
    def is_empty(self) -> bool:
        return not self.running and not self.parked

    @property
    def num_free_slots(self) -> int:
        return self.num_slots - len(self.running)

    def move(self, state: ReplicaState, reason: str) -> None:
        """Change state. An illegal change is a bug of ours, so it is an assertion."""
        assert state in TRANSITIONS[self.state], f"{self.state} → {state}"
        self.state = state
        self.reason = reason
