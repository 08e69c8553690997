"""Jobs: durable work. What a job is, what is kept of it, and the JobStore seam.

A job either runs a *program* in a worker of its own (`spec.program` names one), or it is a
*durable call*: an inference that the kernel itself makes on the owner's behalf (`INFER`).
A batch is a job of the program `batch`, a stored response a durable call: `batch_X`, `resp_X` and
`job_X` are three names of one thing.

Times are UTC in ns. An *attempt* is one start of a job, counted from 1; `epoch` is the server run
that made it. Whoever reports on an attempt names both, and a store changes nothing for an old one.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.principal import Principal, ServiceClass
from llmos.errors import ErrorInfo

INFER = "infer"
"""The program of a durable call. Its `inputs["generate"]` is a `program.Generate` and its
`outputs["answer"]` a `program.Answer`, both as `msgspec.to_builtins` makes them; what else is in
`inputs` is the front end's own and comes back with the record. A call that ended without an answer
has the job's `error`. With `inputs["stream"]` its text is logged as it comes, all of it before the
job ends: events of kind `text` with `{"text": ..., "attempt": ...}`."""

BATCH = "batch"
"""The program of OpenAI's batches. `inputs`: `endpoint` (`/v1/chat/completions` ...), `expires_at`
(UTC seconds) and `completion_window` (the client's word); `files`: `input`. Its streams are
`output` and `error`. `progress.counts` has `total`, `completed` and `failed`, and so has
`outputs["request_counts"]`; `outputs["status"]` is `completed`, `expired` or `cancelled`. A file
that is no batch fails the job with an error whose `details["errors"]` is OpenAI's
`batch.errors`."""


SPENT = "spent"
"""Events of this kind end each attempt of a program: `value` is a `spent.Spent`, its calls' use
included."""


class JobState(enum.StrEnum):
    """BLOCKED (others must end) → PENDING ⇄ RUNNING → one of the last four.

    SUSPENDED is an operator's wish: it stays so, restarts included, until it is resumed. DEAD is
    a job whose workers died too often: kept with the reason, to be retried by hand.
    """

    BLOCKED = "blocked"
    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD})


class JobSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked for. `inputs` is the program's own JSON.

    `files`: a name the program knows, and the file's id; the program finds each as a read-only
    path. `models`: a name the program knows, and the version whose folder it is to find by it.
    `needs` are jobs that must succeed first. `memory_bytes` 0: the program's own estimate.
    `timeout_s` bounds one attempt's run, `expires_ns` the whole job. `max_attempts` bounds starts
    after failures that may pass; worker deaths are counted apart. Files that its results become
    are kept for `exports_expire_s` (None: until they are removed).
    """

    program: str
    inputs: dict[str, Any] = {}
    name: str = ""
    files: dict[str, str] = {}
    models: dict[str, str] = {}
    service_class: ServiceClass = ServiceClass.BATCH
    nice: int = 0
    needs: list[str] = []
    parent_id: str | None = None
    memory_bytes: int = 0
    max_attempts: int = 3
    timeout_s: float | None = None
    start_at_ns: int | None = None
    expires_ns: int | None = None
    metadata: dict[str, str] = {}
    exports_expire_s: float | None = None


class JobProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far it is: `done` of `total` (0: unknown) `unit`s; `counts` are the program's own."""

    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    what: str = ""
    counts: dict[str, int] = {}
    at_ns: int = 0


class JobRecord(msgspec.Struct, frozen=True):
    """A job as the store keeps it. `reason` says why it is in this state.

    `due_ns`: not before. `epoch`: the server run that stored it or last began it. `attempt` counts
    starts since the last retry. `num_deaths` counts worker deaths that were not a server's own end,
    `num_failures` failures that may pass, against `spec.max_attempts`; what gave way, or went down
    with its server, counts as neither.
    `num_unmet` counts jobs of `spec.needs` that have not succeeded yet.
    """

    job_id: str
    principal: Principal
    spec: JobSpec
    state: JobState
    created_ns: int
    epoch: int
    reason: str = ""
    due_ns: int = 0
    attempt: int = 0
    num_deaths: int = 0
    num_failures: int = 0
    num_unmet: int = 0
    started_ns: int | None = None
    ended_ns: int | None = None
    cancel_reason: str | None = None
    progress: JobProgress | None = None
    checkpoint: BlobRef | None = None
    outputs: dict[str, Any] | None = None
    error: ErrorInfo | None = None


class Attempt(msgspec.Struct, frozen=True):
    """Which start of which job a report is about."""

    job_id: str
    number: int
    epoch: int


class JobEvent(msgspec.Struct, frozen=True, tag="jobevent"):
    """One line of a job's log. `number` counts within the job from 1, without gaps.

    `kind`: `log`, `metric`, `output`, `progress` (the program's), `state` (the kernel's decisions,
    with the reason), `spent` (the kernel's, see `SPENT`) or a program's own word.
    """

    job_id: str
    number: int
    at_ns: int
    kind: str
    value: dict[str, Any]


class NewEvent(msgspec.Struct, frozen=True):
    """An event on its way into the store, which numbers it."""

    at_ns: int
    kind: str
    value: dict[str, Any]


class ResultRow(msgspec.Struct, frozen=True):
    """One keyed result of a program, kept at most once: the first one with this key stays.

    `stream` names the file it is exported to when the job ends; `order` sorts within it.
    """

    stream: str
    key: str
    order: int
    body: bytes


class Idempotency(msgspec.Struct, frozen=True):
    """A client's `Idempotency-Key`, and a digest of what it asked with it."""

    key: str
    request_digest: str


class JobFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Empty fields select everything. Newest first; `after` is the last id of the page before."""

    tenant_id: str | None = None
    programs: list[str] = []
    states: list[JobState] = []
    parent_id: str | None = None
    after: str | None = None
    limit: int = 100


class Schedule(msgspec.Struct, frozen=True):
    """Submit `spec` whenever `cron` (five fields, in `timezone`) says so.

    Missed times (the server was down, the clock jumped) are made up by one job, not by many.
    """

    schedule_id: str
    principal: Principal
    cron: str
    spec: JobSpec
    created_ns: int
    next_ns: int
    timezone: str = "UTC"
    paused: bool = False
    last_job_id: str | None = None


class Ended(msgspec.Struct, frozen=True):
    """What the end of a job brought about: jobs now runnable, and jobs that ended with it, or that
    run and were marked to be ended (`cancel_reason`)."""

    job: JobRecord
    unblocked: list[JobRecord] = []
    cascaded: list[JobRecord] = []


class JobStore(Protocol):
    """Durable jobs. A method that changes something returns once the change is on disk.

    Methods that take an `Attempt` return False (or None) and change nothing when it is no longer
    the job's current one, or the job has ended. Raises StorageError, DiskFull, QueueFull (too many
    calls wait) besides what is named.
    """

    async def add(
        self, jobs: Sequence[JobRecord], idempotency: Idempotency | None = None
    ) -> list[JobRecord]:
        """All or none, as they are stored: blocked if they need others. With an idempotency key
        seen before from this principal: the jobs of then.

        Raises IdempotencyMismatch, NotFound (`needs`, `files`, `parent_id`), InvalidRequest (a
        cycle), Conflict (the parent has ended), QuotaExceeded (the tenant's, if it has one).
        """
        ...

    async def claim(self, limit: int, now_ns: int) -> list[JobRecord]:
        """Pending jobs that are due, most urgent class first, then tenants in turn, the oldest of
        each; they are this kernel's until it reports on them, releases them or dies. One whose
        `cancel_reason` is set (its kernel died before it could end it) is to be begun and finished
        at once. Nothing while another kernel leads on a shared database."""
        ...

    async def release(self, job_ids: Sequence[str]) -> None:
        """Claimed, but not started: anyone's again."""
        ...

    async def wait_for_work(self, timeout_s: float) -> None:
        """Return when there may be something new to claim, or after `timeout_s`. One waiter."""
        ...

    async def next_due_ns(self) -> int | None:
        """When `claim` will next find a job that now is not due; also the next schedule."""
        ...

    async def recover(self, now_ns: int | None = None) -> int:
        """At the start: what dead kernels had claimed or were running is pending again. The number
        of jobs that were running.

        With `now_ns`, and whenever the clock was set back: what waits to be tried again for longer
        than anything is made to wait is due at once."""
        ...

    async def begin(self, job_id: str, now_ns: int) -> Attempt | None:
        """A claimed job starts: RUNNING, its next attempt. None: it may not start any more."""
        ...

    async def progress(self, attempt: Attempt, progress: JobProgress) -> bool: ...

    async def append(self, attempt: Attempt, events: Sequence[NewEvent]) -> int | None:
        """Add to its log, bounded: of too many, the oldest go. The last number given."""
        ...

    async def note(self, job_id: str, events: Sequence[NewEvent]) -> int | None:
        """Add the kernel's own word to a log, whatever attempt it is in. None: no such job."""
        ...

    async def put_results(self, attempt: Attempt, rows: Sequence[ResultRow]) -> bool: ...

    async def result_keys(self, job_id: str) -> list[tuple[str, str]]:
        """(stream, key) of every result kept, so that a new attempt skips what is done."""
        ...

    async def gather(self, attempt: Attempt, stream: str, path: str) -> bool:
        """Write the stream's results to `path`, as `finish` would export them. Raises DiskFull,
        StorageError."""
        ...

    async def checkpoint(self, attempt: Attempt, state: BlobRef) -> bool:
        """What the next attempt continues from. The blob is kept while it is the job's newest."""
        ...

    async def requeue(
        self, attempt: Attempt, due_ns: int, reason: str, *, died: bool, error: ErrorInfo | None
    ) -> JobRecord | None:
        """From RUNNING back to PENDING, not before `due_ns`; one that an operator suspended while
        it ran stays SUSPENDED. `died` counts a worker's death, else an `error` counts a failure."""
        ...

    async def finish(
        self,
        attempt: Attempt,
        state: JobState,
        reason: str,
        *,
        outputs: dict[str, Any] | None = None,
        error: ErrorInfo | None = None,
        exports: dict[str, str] | None = None,
    ) -> Ended | None:
        """The one way a started job ends; DEAD counts the death it ends of. In the same
        transaction: jobs that needed it are unblocked or cancelled with it, children that live are
        cancelled, results are exported.

        `exports` maps a stream of results to a file's name: the rows become a File of purpose
        `batch_output` owned by the job's owner, a line each, and `outputs["files"][stream]` its id
        (None for a stream without rows). The rows of a job that did not succeed stay, too, for a
        retry.
        """
        ...

    async def cancel(self, job_id: str, reason: str) -> list[JobRecord]:
        """The job and its descendants. What is not running ends here; a running one is marked
        (`cancel_reason`), and its kernel ends it with `finish`. What was changed, the job itself
        first, which may have ended before. Raises NotFound."""
        ...

    async def suspend(self, job_id: str, reason: str) -> JobRecord:
        """An operator's wish, kept. One that runs becomes SUSPENDED too, and its attempt stays the
        current one until its kernel requeues or finishes it. Raises NotFound, Conflict (it has
        ended)."""
        ...

    async def resume(self, job_id: str, reason: str) -> JobRecord:
        """RUNNING again if an attempt of this epoch is still there (a frozen one), else BLOCKED or
        PENDING. Raises NotFound, Conflict (it is not suspended)."""
        ...

    async def renice(
        self, job_id: str, nice: int | None, service_class: ServiceClass | None
    ) -> JobRecord:
        """Raises NotFound, Conflict (it has ended)."""
        ...

    async def retry(self, job_id: str, reason: str) -> JobRecord:
        """An ended job that did not succeed begins again, its counts at 0. Its results and its
        checkpoint are kept, and `Attempt.number` goes on counting. Raises NotFound, Conflict."""
        ...

    async def remove(self, job_id: str) -> JobRecord:
        """Forget an ended job and all that is kept of it. Raises NotFound, Conflict."""
        ...

    async def get(self, job_id: str) -> JobRecord:
        """Raises NotFound."""
        ...

    async def page(self, query: JobFilter) -> list[JobRecord]: ...

    async def count(self) -> dict[JobState, int]: ...

    async def events(
        self, job_id: str, after: int = 0, limit: int = 1000, kinds: Sequence[str] = ()
    ) -> list[JobEvent]:
        """What follows number `after`, oldest first; 0: from the oldest that is kept. Raises
        NotFound, OffsetLost (what follows was dropped, or `after` was never given)."""
        ...

    async def add_schedule(self, schedule: Schedule) -> Schedule:
        """Raises InvalidRequest (cron, timezone), QuotaExceeded (of its tenant's)."""
        ...

    async def list_schedules(self, tenant_id: str | None) -> list[Schedule]: ...

    async def remove_schedule(self, schedule_id: str) -> Schedule:
        """Raises NotFound."""
        ...

    async def fire_schedules(self, now_ns: int) -> list[JobRecord]:
        """Add one job for every schedule that is due, and set when each is due next, in one
        transaction."""
        ...

    async def retain(self, now_ns: int) -> int:
        """Forget ended jobs, idempotency keys and files past their time, a bounded part in one
        transaction; how many rows went. To be called again until it is 0."""
        ...
