"""What can happen to the core. The loop makes these; nothing else changes the core's state."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.abi.events import Terminal
from llmos.abi.policy import Waiting
from llmos.abi.principal import ServiceClass
from llmos.errors import ErrorInfo
from llmos.kernel.core.replica import ModelFacts


@dataclass(frozen=True, slots=True)
class Arrived:
    """A prepared request asks for a row. `max_tokens` 0: as many as the context holds.

    The core fills in what it alone knows: `waiting.expected_tokens` and `waiting.start_by_ns`.
    """

    waiting: Waiting
    model: ModelFacts
    max_tokens: int = 0
    deadline_ns: int | None = None
    keep_alive_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client left, or an operator ends it."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The worker's terminal event."""

    request_id: str
    event: Terminal


@dataclass(frozen=True, slots=True)
class Progressed:
    """One engine step of a replica: how many tokens each request made."""

    replica_id: str
    tokens: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Reniced:
    """An operator, or its owner, changes how urgent it is. None: as it was."""

    request_id: str
    nice: int | None = None
    service_class: ServiceClass | None = None


@dataclass(frozen=True, slots=True)
class ReaderStalled:
    """The client's buffer is full."""

    request_id: str


@dataclass(frozen=True, slots=True)
class ReaderResumed:
    """The client reads again."""

    request_id: str


@dataclass(frozen=True, slots=True)
class ReplicaUp:
    """Loaded. `used_bytes` is measured: the reservation shrinks to it, it never grows."""

    replica_id: str
    num_slots: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class ReplicaRefused:
    """The driver could not load the model: trying again at once would fail again."""

    replica_id: str
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class ReplicaGone:
    """The worker is dead. `error` None: it was asked to stop."""

    replica_id: str
    error: ErrorInfo | None


@dataclass(frozen=True, slots=True)
class ModelWanted:
    """Make it resident now. `pin`: keep it so, whatever the keep-alive says."""

    model: ModelFacts
    pin: bool


@dataclass(frozen=True, slots=True)
class ModelUnwanted:
    """Let its replica finish what it runs and stop."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Draining:
    """The server stops: nothing new is accepted."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The workers are about to be stopped: what still runs or waits ends now."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A timer is due."""


CoreEvent = (
    Arrived
    | Cancelled
    | Ended
    | Progressed
    | Reniced
    | ReaderStalled
    | ReaderResumed
    | ReplicaUp
    | ReplicaRefused
    | ReplicaGone
    | ModelWanted
    | ModelUnwanted
    | Draining
    | Closing
    | Tick
)
