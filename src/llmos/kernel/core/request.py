"""A request as the core sees it, and the only ways its state may change."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from llmos.abi.policy import Waiting


class RequestState(enum.StrEnum):
    """WAITING → RUNNING ⇄ PAUSED → STOPPING → gone; every state may end."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"


TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    RequestState.WAITING: frozenset({RequestState.RUNNING}),
    RequestState.RUNNING: frozenset({RequestState.PAUSED, RequestState.STOPPING}),
    RequestState.PAUSED: frozenset({RequestState.RUNNING, RequestState.STOPPING}),
    RequestState.STOPPING: frozenset(),
}


@dataclass(slots=True)
class Request:
    """`waiting` is what the policy may know; `reason` says why it is where it is."""

    waiting: Waiting
    model_id: str
    arrived_ns: int
    keep_alive_ns: int | None = None
    state: RequestState = RequestState.WAITING
    replica_id: str | None = None
    started_ns: int | None = None
    stalled_ns: int | None = None
    reason: str = ""

    def move(self, state: RequestState, reason: str) -> None:
        """Change state. An illegal change is a bug of ours, so it is an assertion."""
        assert state in TRANSITIONS[self.state], f"{self.state} → {state}"
        self.state = state
        self.reason = reason
