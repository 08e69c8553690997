"""A request as the core sees it, and the only ways its state may change."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from llmos.abi.policy import Waiting
from llmos.kernel.core.cost import Prediction


class RequestState(enum.StrEnum):
    """WAITING → RUNNING ⇄ PARKED (its slice is over) or STALLED (nobody reads) → STOPPING → gone.

    WAITING and PARKED are in the queue; only RUNNING and STOPPING hold a row.
    """

    WAITING = "waiting"
    RUNNING = "running"
    PARKED = "parked"
    STALLED = "stalled"
    STOPPING = "stopping"


TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    RequestState.WAITING: frozenset({RequestState.RUNNING}),
    RequestState.RUNNING: frozenset(
        {RequestState.PARKED, RequestState.STALLED, RequestState.STOPPING}
    ),
    RequestState.PARKED: frozenset(
        {RequestState.RUNNING, RequestState.STALLED, RequestState.STOPPING}
    ),
    RequestState.STALLED: frozenset({RequestState.PARKED, RequestState.STOPPING}),
    RequestState.STOPPING: frozenset(),
}

QUEUED = frozenset({RequestState.WAITING, RequestState.PARKED})


@dataclass(slots=True)
class Request:
    """`waiting` is what the policy may know; `reason` says why it is where it is.

    `load_sum` adds up the rows in use at each of its `num_steps` steps; `max_tokens` 0: no bound.
    `begin_by_ns`: when it must have begun to meet its deadline, if all goes well.
    `queued_ns` and `queued_tokens` are what it counts for in its queue, since it was put there.
    """

    waiting: Waiting
    model_id: str
    arrived_ns: int
    max_tokens: int
    prediction: Prediction
    queued_ns: float = 0.0
    queued_tokens: int = 0
    deadline_ns: int | None = None
    begin_by_ns: int | None = None
    keep_alive_ns: int | None = None
    state: RequestState = RequestState.WAITING
    replica_id: str | None = None
    started_ns: int | None = None
    first_ns: int | None = None
    stalled_ns: int | None = None
    away_ns: int = 0
    left_ns: int = 0
    num_tokens: int = 0
    slice_tokens: int = 0
    num_slices: int = 0
    num_steps: int = 0
    load_sum: int = 0
    reason: str = ""

    def move(self, state: RequestState, reason: str, now_ns: int) -> None:
        """Change state. An illegal change is a bug of ours, so it is an assertion."""
        assert state in TRANSITIONS[self.state], f"{self.state} → {state}"
        if self.state is RequestState.RUNNING:
            self.left_ns = now_ns
        elif state is RequestState.RUNNING and self.started_ns is not None:
            self.away_ns += now_ns - self.left_ns
        self.state = state
        self.reason = reason

    def comes_back(self, now_ns: int) -> None:
        """It wants a row again, and what it has had of one is put down."""
        assert self.started_ns is not None
        ran_ns = self.left_ns - self.started_ns - self.away_ns
        self.waiting = msgspec.structs.replace(self.waiting, ready_ns=now_ns, ran_ns=ran_ns)
