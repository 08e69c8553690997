"""A job as the core sees it, the only ways its phase may change, and all that is known of jobs."""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from llmos.abi.policy import Policy, Waiting
from llmos.abi.principal import ServiceClass

SPARE = "spare"
"""The warm program worker's name in the ledger."""


class JobPhase(enum.StrEnum):
    """QUEUED → STARTING → RUNNING ⇄ FROZEN | WAITING → YIELDING | STOPPING → SETTLING → gone.

    WAITING: for its own calls. YIELDING was asked for a checkpoint, STOPPING to end. SETTLING: its
    worker is gone, and how that went is not on disk yet.
    """

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    FROZEN = "frozen"
    WAITING = "waiting"
    YIELDING = "yielding"
    STOPPING = "stopping"
    SETTLING = "settling"


_P = JobPhase
_ALIVE = {_P.YIELDING, _P.STOPPING, _P.SETTLING}
TRANSITIONS: dict[JobPhase, set[JobPhase]] = {
    _P.QUEUED: {_P.STARTING, _P.SETTLING},
    _P.STARTING: {_P.RUNNING, _P.STOPPING, _P.SETTLING},
    _P.RUNNING: {_P.FROZEN, _P.WAITING} | _ALIVE,
    _P.FROZEN: {_P.RUNNING, _P.WAITING} | _ALIVE,
    _P.WAITING: {_P.RUNNING, _P.FROZEN} | _ALIVE,
    _P.YIELDING: {_P.STOPPING, _P.SETTLING},
    _P.STOPPING: {_P.SETTLING},
    _P.SETTLING: set(),
}

AT_WORK = frozenset({_P.RUNNING, _P.FROZEN, _P.WAITING})
"""A program has its worker, and nobody has asked it to go."""


LEAVING = frozenset({_P.YIELDING, _P.STOPPING})


class Ending(enum.StrEnum):
    """Why a job was asked to leave its worker. The lower ones here win over those above."""

    NONE = "none"
    ROOM = "room"
    SUSPENDED = "suspended"
    DRAINED = "drained"
    OVER_MEMORY = "over memory"
    TIMED_OUT = "timed out"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


_RANK = {ending: rank for rank, ending in enumerate(Ending)}
COMES_BACK = frozenset({Ending.ROOM, Ending.SUSPENDED, Ending.DRAINED})
"""Endings of an attempt, not of its job."""


class Outcome(enum.StrEnum):
    """How an attempt went: by itself the first three, DIED when the worker ended without a word.

    NOT_STARTED: the machine has no process for it, which is not the job's fault.
    """

    RETURNED = "returned"
    RAISED = "raised"
    GAVE_WAY = "gave way"
    DIED = "died"
    NOT_STARTED = "not started"


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What the core needs to know of a claimed job. Times are monotonic ns.

    `is_call`: the kernel makes the one inference itself, without a worker. `may_use_spare`: it runs
    under our own interpreter.
    """

    waiting: Waiting
    memory_bytes: int = 0
    is_call: bool = False
    compute: bool = False
    checkpoints: bool = False
    may_use_spare: bool = True
    max_attempts: int = 3
    num_deaths: int = 0
    num_failures: int = 0
    timeout_ns: int | None = None
    expires_ns: int | None = None

    @property
    def job_id(self) -> str:
        return self.waiting.request_id


@dataclass(slots=True)
class Job:
    """`reserved` says whether the ledger holds its bytes. `is_idle`: only its calls are at work.

    `is_held`: frozen by an operator. `began_ns` starts the attempt's time-out, from which
    `frozen_ns` is not counted; `charged_ns` is up to when the policy was told of its running.
    `pressed_ns` and `relieved_ns` are since when more urgent requests are, or are not, there;
    `num_turns` counts the slices it had meanwhile.
    """

    facts: JobFacts
    waiting: Waiting
    phase: JobPhase = JobPhase.QUEUED
    reason: str = ""
    reserved: bool = False
    is_idle: bool = False
    is_held: bool = False
    is_killed: bool = False
    ending: Ending = Ending.NONE
    ending_reason: str = ""
    queued_ns: int = 0
    began_ns: int = 0
    charged_ns: int = 0
    frozen_at_ns: int = 0
    frozen_ns: int = 0
    thawed_ns: int = 0
    pressed_ns: int | None = None
    relieved_ns: int = 0
    num_turns: int = 0
    looks_ns: int = 0
    kill_ns: int | None = None

    @property
    def job_id(self) -> str:
        return self.waiting.request_id

    @property
    def service_class(self) -> ServiceClass:
        return self.waiting.service_class

    @property
    def has_slot(self) -> bool:
        """It counts against the number of jobs that may run."""
        if self.phase in (JobPhase.QUEUED, JobPhase.SETTLING) or self.is_held:
            return False
        return not self.is_idle

    def move(self, phase: JobPhase, reason: str) -> None:
        """Change phase. An illegal change is a bug of ours, so it is an assertion."""
        assert phase in TRANSITIONS[self.phase], f"{self.phase} → {phase}"
        self.phase = phase
        self.reason = reason

    def wants_out(self, ending: Ending, reason: str) -> bool:
        """Remember why it must go; False when a stronger reason is known already."""
        if _RANK[ending] <= _RANK[self.ending]:
            return False
        self.ending, self.ending_reason = ending, reason
        return True


class SpareState(enum.StrEnum):
    """The warm program worker: NONE → KEPT (reserved in the ledger) → taken or LEAVING → NONE."""

    NONE = "none"
    KEPT = "kept"
    LEAVING = "leaving"


@dataclass(slots=True)
class Board:
    """All jobs this kernel has claimed. Programs and durable calls queue apart: each has a window.

    `active` have a worker (or are about to), `active_calls` are durable calls that are being made.
    `load` counts open requests by class. `due` is a heap of when to look at a job again.
    `blocked_bytes`: the free bytes with which the next program did not fit; nothing changes until
    they do. `crowded` are programs that what is kept loaded leaves no room for.
    """

    make_policy: Callable[[], Policy]
    jobs: dict[str, Job] = field(default_factory=dict)
    programs: Policy = field(init=False)
    calls: Policy = field(init=False)
    due: list[tuple[int, str]] = field(default_factory=list)
    active: dict[str, Job] = field(default_factory=dict)
    active_calls: dict[str, Job] = field(default_factory=dict)
    load: dict[ServiceClass, int] = field(default_factory=lambda: dict.fromkeys(ServiceClass, 0))
    is_dirty: bool = False
    blocked_bytes: int | None = None
    crowded: dict[str, None] = field(default_factory=dict)
    spare: SpareState = SpareState.NONE
    spare_due_ns: int | None = None

    def __post_init__(self) -> None:
        self.programs, self.calls = self.make_policy(), self.make_policy()

    def queue(self, job: Job) -> Policy:
        return self.calls if job.facts.is_call else self.programs

    def num_slots_used(self) -> int:
        """Programs that hold a slot."""
        return sum(job.has_slot for job in self.active.values())

    def num_queued(self) -> int:
        return len(self.programs) + len(self.calls) + len(self.crowded)

    def look_at(self, job_id: str, due_ns: int) -> None:
        """Have `jobs_life.look` see to the job then. Compacts when most of it is of ended ones."""
        if len(self.due) > 64 and len(self.due) > 4 * len(self.jobs):
            self.due = [entry for entry in self.due if entry[1] in self.jobs]
            heapq.heapify(self.due)
        heapq.heappush(self.due, (due_ns, job_id))

    def is_pressed(self, job: Job) -> bool:
        """A request of a higher class than the job's is open."""
        return any(count and kind > job.service_class for kind, count in self.load.items())

    def leaving_bytes(self) -> int:
        """Reserved by what is on its way out."""
        return sum(
            job.facts.memory_bytes
            for job in self.active.values()
            if job.reserved and (job.phase in LEAVING or job.ending is not Ending.NONE)
        )
