"""A replica as the core sees it, and the only ways its state may change."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class ReplicaState(enum.StrEnum):
    """STARTING → READY → DRAINING → STOPPING → gone; a death may come in any state.

    READY or DRAINING → PARKING → PARKED (its process waits, its memory is given back) → UNPARKING
    → READY.
    """

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    PARKING = "parking"
    PARKED = "parked"
    UNPARKING = "unparking"
    STOPPING = "stopping"


_R = ReplicaState
TRANSITIONS: dict[ReplicaState, frozenset[ReplicaState]] = {
    _R.STARTING: frozenset({_R.READY, _R.STOPPING}),
    _R.READY: frozenset({_R.DRAINING, _R.PARKING, _R.STOPPING}),
    _R.DRAINING: frozenset({_R.PARKING, _R.STOPPING}),
    _R.PARKING: frozenset({_R.PARKED, _R.READY, _R.STOPPING}),
    _R.PARKED: frozenset({_R.UNPARKING, _R.STOPPING}),
    _R.UNPARKING: frozenset({_R.READY, _R.STOPPING}),
    _R.STOPPING: frozenset(),
}

COMING = frozenset({_R.STARTING, _R.UNPARKING, _R.READY})
"""It takes new requests, or will."""

LEAVING = frozenset({_R.DRAINING, _R.PARKING, _R.STOPPING})
"""It gives back bytes in a while."""

HOST = "host"
"""The machine's own memory, as a device."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the core needs to know of a model version to place it.

    `reserve_bytes`: upper bound, of the host; `device_bytes`: of `device`, where that has memory of
    its own. `kv_bytes_per_token`: of a request that is paused or suspended. `snapshots` and `parks`
    are its driver's capabilities, `parked_bytes` what a parked replica keeps of the host. `why` is
    the arithmetic of what it needs, `advice` what would fit where it does not, both in words.
    `dtype`: of its weights, once loaded; `draft`: the id of the model that guesses tokens ahead for
    it, if one does.
    """

    model_id: str
    ref: str
    reserve_bytes: int
    num_slots: int
    kv_bytes_per_token: int = 0
    snapshots: bool = False
    parks: bool = False
    device: str = HOST
    device_bytes: int = 0
    parked_bytes: int = 0
    why: str = ""
    advice: str = ""
    dtype: str = ""
    draft: str = ""

    @property
    def form(self) -> tuple[str, str]:
        """What may be chosen at load: what is found of one form does not hold for another."""
        return self.dtype, self.draft

    @property
    def needs(self) -> dict[str, int]:
        """By device, as far as it needs any."""
        found = {HOST: self.reserve_bytes}
        if self.device_bytes:
            found[self.device] = found.get(self.device, 0) + self.device_bytes
        return found


@dataclass(slots=True)
class Replica:
    """`running` hold a row (stopping ones do), `parked` keep their KV without one, `leaving` are
    being suspended.

    A drained one parks itself when it is empty if `is_to_park` (one that failed to so often,
    `num_unparked`, is not asked again), and suspends what runs on it at
    `drain_by_ns` (None: it waits for its end), for a class `drains_for` (-1: for nobody above it).
    `load_ns`: what its last load, or return from being parked, took.
    """

    replica_id: str
    model: ModelFacts
    reserved_bytes: int
    since_ns: int
    keep_alive_ns: int
    num_slots: int
    state: ReplicaState = ReplicaState.STARTING
    running: dict[str, None] = field(default_factory=dict)
    parked: dict[str, None] = field(default_factory=dict)
    leaving: dict[str, None] = field(default_factory=dict)
    is_to_park: bool = False
    drain_by_ns: int | None = None
    drains_for: int = -1
    load_ns: int = 0
    idle_since_ns: int = 0
    ready_ns: int = 0
    parked_ns: int = 0
    alarm_ns: int = 0
    num_unparked: int = 0
    served: bool = False
    reason: str = ""

    @property
    def is_empty(self) -> bool:
        return not self.running and not self.parked and not self.leaving

    @property
    def requests(self) -> list[str]:
        """Whose state is on it."""
        return [*self.running, *self.parked, *self.leaving]

    @property
    def num_free_slots(self) -> int:
        return self.num_slots - len(self.running)

    def move(self, state: ReplicaState, reason: str) -> None:
        """Change state. An illegal change is a bug of ours, so it is an assertion."""
        assert state in TRANSITIONS[self.state], f"{self.state} → {state}"
        self.state = state
        self.reason = reason
