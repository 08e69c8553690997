"""What the core decides, each with its reason. The loop applies them in order."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.abi.events import Terminal
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
    """Submit to the replica."""

    request_id: str
    replica_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class PauseRow:
    request_id: str
    replica_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnpauseRow:
    request_id: str
    replica_id: str
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
class Resident:
    """Who asked for the model's residency has it. `error`: it is given up, and why."""

    model_id: str
    error: ErrorInfo | None


Decision = (
    Accept
    | Refuse
    | Dispatch
    | PauseRow
    | UnpauseRow
    | AbortRow
    | Close
    | StartReplica
    | StopReplica
    | Resident
)
