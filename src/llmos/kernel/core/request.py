"""A request as the core sees it, and the only ways its state may change."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from llmos.abi.policy import Waiting
from llmos.kernel.core.cost import Prediction


class RequestState(enum.StrEnum):
    """WAITING → RUNNING ⇄ PARKED (its slice is over) or STALLED (nobody reads) → STOPPING → gone.

    From RUNNING, PARKED and STALLED also → SUSPENDING (its state is being put away) → SUSPENDED (it
    is on no worker) → RUNNING, wherever its model is. WAITING, PARKED and SUSPENDED are in the
    queue, unless they are held; only RUNNING and STOPPING hold a row.
    """

    WAITING = "waiting"
    RUNNING = "running"
    PARKED = "parked"
    STALLED = "stalled"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    STOPPING = "stopping"


_S = RequestState
TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    _S.WAITING: frozenset({_S.RUNNING}),
    _S.RUNNING: frozenset({_S.PARKED, _S.STALLED, _S.SUSPENDING, _S.SUSPENDED, _S.STOPPING}),
    _S.PARKED: frozenset({_S.RUNNING, _S.STALLED, _S.SUSPENDING, _S.SUSPENDED, _S.STOPPING}),
    _S.STALLED: frozenset({_S.PARKED, _S.SUSPENDING, _S.SUSPENDED, _S.STOPPING}),
    _S.SUSPENDING: frozenset({_S.PARKED, _S.STALLED, _S.SUSPENDED, _S.STOPPING}),
    _S.SUSPENDED: frozenset({_S.RUNNING}),
    _S.STOPPING: frozenset(),
}

QUEUED = frozenset({RequestState.WAITING, RequestState.PARKED, RequestState.SUSPENDED})
ROWLESS = frozenset({RequestState.WAITING, RequestState.SUSPENDED})
"""On no replica: any replica of its model may run it."""


@dataclass(slots=True)
class Request:
    """`waiting` is what the policy may know; `reason` says why it is where it is.

    `load_sum` adds up the rows in use at each of its `num_steps` steps; `max_tokens` 0: no bound.
    `begin_by_ns`: when it must have begun to meet its deadline, if all goes well.
    `queued_ns` and `queued_tokens` are what it counts for in its queue, since it was put there.

    `num_preempted`: how often a higher class took its row; `comes_first`: it is next in its own
    class for that. `is_on_credit`: it has its row for a slice that its class has earned. `is_held`:
    an operator keeps it off the machine. `survives`: its stream outlives this server.
    `snapshot_bytes` None: there is no file to go on from. `memory_owner` and
    `leaving_owner` name in the ledger what that file, and one that is being written, take of the
    host's memory; None: it is on the disk. `num_resumes` since it last moved; `not_before_ns`:
    something failed, and is tried again then.
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
    num_preempted: int = 0
    comes_first: bool = False
    is_on_credit: bool = False
    is_held: bool = False
    survives: bool = False
    snapshot_bytes: int | None = None
    memory_owner: str | None = None
    leaving_owner: str | None = None
    is_spilling: bool = False
    num_suspensions: int = 0
    num_resumes: int = 0
    not_before_ns: int = 0
    reason: str = ""

    @property
    def request_id(self) -> str:
        return self.waiting.request_id

    @property
    def context_tokens(self) -> int:
        """Of which it has keys and values, at most."""
        return self.waiting.prompt_tokens + self.num_tokens

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
