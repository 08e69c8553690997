"""What the core decides, each with its reason. The loop applies them in order."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from llmos.abi.events import Terminal
from llmos.abi.jobs import JobState
from llmos.abi.suspended import Tier
from llmos.errors import ErrorInfo
from llmos.kernel.core.replica import ModelFacts


@dataclass(frozen=True, slots=True)
class Accept:
    """The request is ours now: its stream will end with exactly one `Close`.

    `wait_ns` and `service_ns` are predictions.
    """

    request_id: str
    reason: str
    wait_ns: float = 0.0
    service_ns: float = 0.0


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request never became ours."""

    request_id: str
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Submit to the replica; with `resumes`, go on from where it was suspended."""

    request_id: str
    replica_id: str
    reason: str
    resumes: bool = False


class Pause(enum.StrEnum):
    """Why a row is given up: for a higher class, in turn among equals, because nobody reads the
    answer, or because the request is to leave its worker."""

    PREEMPTED = "preempted"
    TURN = "turn"
    STALLED = "stalled"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class PauseRow:
    request_id: str
    replica_id: str
    reason: str
    kind: Pause = Pause.PREEMPTED


@dataclass(frozen=True, slots=True)
class UnpauseRow:
    request_id: str
    replica_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SuspendRow:
    """Put its state away, out of the worker; `Suspended` or `SuspendFailed` follows.

    `tier` None: it leaves no snapshot, and will be recomputed. `is_for_another`: its row, or its
    model's room, is somebody else's then.
    """

    request_id: str
    replica_id: str
    reason: str
    tier: Tier | None
    is_for_another: bool = False


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """It is off the machine and stays so until it is released."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RefuseHold:
    """It could not be suspended, and goes on."""

    request_id: str
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Requeue:
    """Off its worker, it waits for a row again."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class DropSnapshot:
    """It has moved on, so the file is of no use any more."""

    request_id: str


@dataclass(frozen=True, slots=True)
class SpillSnapshot:
    """From memory to the disk; `Spilled` follows."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class AbortRow:
    """Ask the worker to end it; its terminal event follows as any other's."""

    request_id: str
    replica_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Close:
    """Deliver the terminal event and forget the request. `reason` compares with the prediction."""

    request_id: str
    event: Terminal
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StartReplica:
    replica_id: str
    model: ModelFacts
    reason: str


@dataclass(frozen=True, slots=True)
class StopReplica:
    replica_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ParkReplica:
    """Have it give back its memory and keep its process; `ReplicaParked` follows."""

    replica_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnparkReplica:
    """Have it serve again; `ReplicaUnparked` or `ReplicaRefused` follows."""

    replica_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class LacksRoom:
    """Whoever waits for the model waits for memory, and why there is none. Told when it changes."""

    model_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resident:
    """Who asked for the model's residency has it. `error`: it is given up, and why."""

    model_id: str
    error: ErrorInfo | None


@dataclass(frozen=True, slots=True)
class StartJob:
    """Begin an attempt: in the store first, then its worker; with `takes_spare` the warm one."""

    job_id: str
    reason: str
    takes_spare: bool = False


@dataclass(frozen=True, slots=True)
class AskJob:
    """Tell its program to make a checkpoint and leave; with `stop`, that its job is over."""

    job_id: str
    stop: bool
    reason: str


@dataclass(frozen=True, slots=True)
class FreezeJob:
    """Stop its worker where it is. Of many short turns only some are `is_told` in its log."""

    job_id: str
    reason: str
    is_told: bool = True


@dataclass(frozen=True, slots=True)
class ThawJob:
    """As `FreezeJob`."""

    job_id: str
    reason: str
    is_told: bool = True


@dataclass(frozen=True, slots=True)
class KillJob:
    """Its worker, now. `JobOver` follows as any other's."""

    job_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class FinishJob:
    """The job ends for good; `JobSettled` follows once that is on disk."""

    job_id: str
    state: JobState
    reason: str
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class RequeueJob:
    """Back to the store, not before `delay_ns` from now. `died` counts a death, else `error` a
    failure."""

    job_id: str
    delay_ns: int
    reason: str
    died: bool = False
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class ExpireJob:
    """Its time came while it queued: begin it and end it, without a worker."""

    job_id: str
    reason: str
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class StartSpare:
    """Keep a program worker warm."""


@dataclass(frozen=True, slots=True)
class StopSpare:
    reason: str


Decision = (
    Accept
    | Refuse
    | Dispatch
    | PauseRow
    | UnpauseRow
    | SuspendRow
    | HoldRequest
    | RefuseHold
    | Requeue
    | DropSnapshot
    | SpillSnapshot
    | AbortRow
    | Close
    | StartReplica
    | StopReplica
    | ParkReplica
    | UnparkReplica
    | LacksRoom
    | Resident
    | StartJob
    | AskJob
    | FreezeJob
    | ThawJob
    | KillJob
    | FinishJob
    | RequeueJob
    | ExpireJob
    | StartSpare
    | StopSpare
)
