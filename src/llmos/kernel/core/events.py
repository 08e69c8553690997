"""What can happen to the core. The loop makes these; nothing else changes the core's state."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.abi.events import Terminal
from llmos.abi.policy import Waiting
from llmos.abi.principal import ServiceClass
from llmos.errors import ErrorInfo
from llmos.kernel.core.jobs import JobFacts, Outcome
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
    survives: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """A request of an earlier server of this home: it was accepted there, and goes on here.

    `num_tokens` of its answer are made; `snapshot_bytes` None: it goes on from these alone.
    """

    arrived: Arrived
    num_tokens: int
    is_held: bool
    snapshot_bytes: int | None = None


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
class RequestHeld:
    """An operator takes it off the machine until `RequestReleased`."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RequestReleased:
    """It may go on."""

    request_id: str
    reason: str = "resumed by an operator"


@dataclass(frozen=True, slots=True)
class Suspended:
    """Its worker has forgotten it. `size_bytes` None: there is no snapshot, it is recomputed.

    `is_on_disk`: it lies there, whatever was asked for.
    """

    request_id: str
    size_bytes: int | None
    is_on_disk: bool = False


@dataclass(frozen=True, slots=True)
class SuspendFailed:
    """It is where it was, on its worker, paused."""

    request_id: str
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class SnapshotLost:
    """It could not go on from its snapshot, which is gone."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Spilled:
    """Its snapshot is on the disk now; `error`: it stays where it was."""

    request_id: str
    error: ErrorInfo | None = None


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
    """Loaded. `used_bytes` and `device_used_bytes` are measured: the reservation becomes that.

    `peak_bytes`: what it held at most while it loaded.
    """

    replica_id: str
    num_slots: int
    used_bytes: int
    device_used_bytes: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaParked:
    """It has given back what it can. `error`: it could not, and serves as before."""

    replica_id: str
    used_bytes: int
    device_used_bytes: int = 0
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class ReplicaUnparked:
    """It serves again."""

    replica_id: str
    used_bytes: int
    device_used_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaMeasured:
    """It was found to hold more than is reserved for it."""

    replica_id: str
    used_bytes: int
    device_used_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryMeasured:
    """By device, the bytes that nobody has and that are promised to nobody. Negative: others on
    this machine need them more. What could not be measured is 0."""

    headroom: dict[str, int]


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
    """Make it resident now. `pin`: keep it so, whatever the keep-alive says, from when it is there.

    `is_standing`: it is pinned from now on, there or not. `keep_alive_ns` None: as it was.
    """

    model: ModelFacts
    pin: bool
    keep_alive_ns: int | None = None
    is_standing: bool = False


@dataclass(frozen=True, slots=True)
class ModelUnpinned:
    """It is kept as any other from now on."""

    model_id: str


@dataclass(frozen=True, slots=True)
class ModelUnwanted:
    """Let its replica finish what it runs and stop."""

    model_id: str


@dataclass(frozen=True, slots=True)
class JobClaimed:
    """The store gave it to this kernel: it queues."""

    job: JobFacts


@dataclass(frozen=True, slots=True)
class JobDropped:
    """It is the kernel's no more, and never ran: ended, suspended or released in the store."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobBegun:
    """Its attempt is on disk and at work."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobNotBegun:
    """The store did not let it begin."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobWaits:
    """Its program does nothing but wait for its calls, or works again."""

    job_id: str
    is_idle: bool


@dataclass(frozen=True, slots=True)
class JobTooBig:
    """Its worker was measured above what it may have."""

    job_id: str
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class JobOver:
    """An attempt is over and its worker gone."""

    job_id: str
    outcome: Outcome
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class JobSettled:
    """What was decided about its end is on disk."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """The store has marked it: it is to end for good."""

    job_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobSuspended:
    """The store has it as suspended: it is to leave the machine, or to freeze."""

    job_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobResumed:
    """The store has it as resumed."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobReniced:
    """None: as it was."""

    job_id: str
    nice: int | None = None
    service_class: ServiceClass | None = None


@dataclass(frozen=True, slots=True)
class SpareGone:
    """The warm program worker is no more. `error` None: it was asked to stop."""

    error: ErrorInfo | None = None


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
    | Restored
    | Cancelled
    | Ended
    | Progressed
    | Reniced
    | RequestHeld
    | RequestReleased
    | Suspended
    | SuspendFailed
    | SnapshotLost
    | Spilled
    | ReaderStalled
    | ReaderResumed
    | ReplicaUp
    | ReplicaParked
    | ReplicaUnparked
    | ReplicaMeasured
    | MemoryMeasured
    | ReplicaRefused
    | ReplicaGone
    | ModelWanted
    | ModelUnpinned
    | ModelUnwanted
    | JobClaimed
    | JobDropped
    | JobBegun
    | JobNotBegun
    | JobWaits
    | JobTooBig
    | JobOver
    | JobSettled
    | JobCancelled
    | JobSuspended
    | JobResumed
    | JobReniced
    | SpareGone
    | Draining
    | Closing
    | Tick
)
