"""Messages between the kernel and a worker, over one inherited socket."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import Event
from llmos.abi.inference import Prepared, PrepareItem, WorkItem
from llmos.abi.jobs import JobProgress, NewEvent, ResultRow
from llmos.abi.program import Answer, Generate
from llmos.abi.syscall import AliasModel, ListModels, Result, ShowModel, WaitProcess
from llmos.abi.syscall_jobs import RetryJob, ShowJob, SubmitJob
from llmos.errors import ErrorInfo

Askable = ListModels | ShowModel | AliasModel | SubmitJob | ShowJob | RetryJob | WaitProcess
"""System calls that a program may make."""


class WorkerRole(enum.StrEnum):
    """What one worker process is for."""

    REPLICA = "replica"
    TOKENIZER = "tokenizer"
    PROGRAM = "program"


# kernel -> worker


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First message. The worker answers `Ready`, or `Fatal` when the versions differ."""

    abi_version: int
    worker_id: str
    role: WorkerRole
    driver: str = ""


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Answered by `Loaded` or `LoadError`, with `Progress` in between."""

    spec: ReplicaSpec


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Each item is answered by events; a refused one by `Failed`."""

    items: list[WorkItem]


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    request_ids: list[str]


class Unpause(msgspec.Struct, frozen=True, tag="unpause"):
    request_ids: list[str]


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    request_ids: list[str]
    reason: str


class Suspend(msgspec.Struct, frozen=True, tag="suspend"):
    """Answered by `Suspended` per id. `folder`: where to; empty: the replica's own."""

    request_ids: list[str]
    folder: str = ""


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    item: WorkItem
    snapshot: SnapshotRef


class Park(msgspec.Struct, frozen=True, tag="park"):
    """The loaded model's memory is wanted. Answered by `Parked`."""


class Unpark(msgspec.Struct, frozen=True, tag="unpark"):
    """The model is wanted again. Answered by `Unparked`, or by `LoadError`."""


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """To a tokenizer worker; answered by one `PrepareResults` for all items."""

    items: list[PrepareItem]


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Answered by `Report` between two steps."""

    nonce: int


class Run(msgspec.Struct, frozen=True, tag="run"):
    """To a program worker, once. Answered at the end by `Returned`, `Raised` or `GaveWay`.

    `files` and `models` are read-only paths by name, `checkpoint` the path of the newest one,
    `done_keys` the (stream, key) of results that are kept already. Bounds: results on their way,
    log lines/s. `niceness` is added to the worker's own, nice(2): processors are given to others
    first.
    """

    job_id: str
    attempt: int
    entry: str
    inputs: dict[str, Any]
    files: dict[str, str]
    checkpoint: str | None
    done_keys: list[tuple[str, str]]
    max_results_in_flight: int
    max_log_lines_per_s: float
    max_calls_in_flight: int
    models: dict[str, str] = {}
    niceness: int = 0


class GiveWay(msgspec.Struct, frozen=True, tag="giveway"):
    """Set `should_yield`; with `stop`, `should_stop` as well."""

    reason: str
    stop: bool = False


class Answers(msgspec.Struct, frozen=True, tag="answers"):
    """Of calls, by the number the worker gave each."""

    answers: list[tuple[int, Answer]]


class Replied(msgspec.Struct, frozen=True, tag="replied"):
    """Of a system call, by the number the worker gave it: its result, or why there is none."""

    number: int
    result: Result | None = None
    error: ErrorInfo | None = None


class Kept(msgspec.Struct, frozen=True, tag="kept"):
    """So many more results are durable; `checkpoint`: the one asked for is, or why not."""

    num_results: int = 0
    checkpoint: bool = False
    error: ErrorInfo | None = None


class Gathered(msgspec.Struct, frozen=True, tag="gathered"):
    """The file that was asked for, or why there is none."""

    path: str = ""
    error: ErrorInfo | None = None


class Registered(msgspec.Struct, frozen=True, tag="registered"):
    """The version that was asked for, or why there is none."""

    ref: str = ""
    error: ErrorInfo | None = None


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Unload and exit 0."""


ToWorker = (
    Hello
    | Load
    | Submit
    | Pause
    | Unpause
    | Abort
    | Suspend
    | Resume
    | Park
    | Unpark
    | Prepare
    | Probe
    | Run
    | GiveWay
    | Answers
    | Replied
    | Kept
    | Gathered
    | Registered
    | Shutdown
)

# worker -> kernel


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    abi_version: int
    pid: int
    capabilities: Capabilities | None


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Of a load: `fraction` in 0..1."""

    fraction: float
    what: str


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    report: LoadReport


class LoadError(msgspec.Struct, frozen=True, tag="loaderr"):
    error: ErrorInfo


class Step(msgspec.Struct, frozen=True, tag="step"):
    """Everything one engine step produced: one message per step, not per token.

    `step_s` is the wall time of the step in seconds, `cpu_s` what the worker used of the processors
    since the message before.
    """

    events: list[Event]
    step_s: float
    cpu_s: float = 0.0


class Suspended(msgspec.Struct, frozen=True, tag="suspended"):
    request_id: str
    snapshot: SnapshotRef | None
    error: ErrorInfo | None = None


class Parked(msgspec.Struct, frozen=True, tag="parked"):
    """`error`: it could not, and serves as before."""

    memory: MemoryReport
    error: ErrorInfo | None = None


class Unparked(msgspec.Struct, frozen=True, tag="unparked"):
    memory: MemoryReport


class PrepareFailure(msgspec.Struct, frozen=True, tag="prep_err"):
    request_id: str
    error: ErrorInfo


class PrepareSuccess(msgspec.Struct, frozen=True, tag="prep_ok"):
    prepared: Prepared


class PrepareResults(msgspec.Struct, frozen=True, tag="prepared"):
    results: list[PrepareSuccess | PrepareFailure]


class Report(msgspec.Struct, frozen=True, tag="report"):
    nonce: int
    health: Health
    memory: MemoryReport


class Told(msgspec.Struct, frozen=True, tag="told"):
    """What a program emitted since the last one: log lines, metrics, outputs, progress."""

    events: list[NewEvent]
    progress: JobProgress | None = None


class Results(msgspec.Struct, frozen=True, tag="results"):
    """Answered by `Kept` once they are durable."""

    rows: list[ResultRow]


class Calls(msgspec.Struct, frozen=True, tag="calls"):
    """Answered by `Answers`, in the order in which they end."""

    calls: list[tuple[int, Generate]]


class Asks(msgspec.Struct, frozen=True, tag="asks"):
    """A system call of a program; answered by one `Replied`."""

    number: int
    body: Askable


class Waits(msgspec.Struct, frozen=True, tag="waits"):
    """The program does nothing but wait for its calls (`idle`), or works again."""

    idle: bool


class Checkpoint(msgspec.Struct, frozen=True, tag="checkpoint"):
    """A file of the scratch folder; answered by `Kept`."""

    path: str


class Gather(msgspec.Struct, frozen=True, tag="gather"):
    """All results of a stream, in a file; answered by `Gathered`, once those sent before are
    durable. One at a time."""

    stream: str


class Register(msgspec.Struct, frozen=True, tag="register"):
    """A folder of the scratch folder becomes a version of the model `name`; answered by
    `Registered`. One at a time."""

    path: str
    name: str


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    outputs: dict[str, Any]


class Raised(msgspec.Struct, frozen=True, tag="raised"):
    """`traceback` is for its owner, bounded."""

    error: ErrorInfo
    traceback: str = ""


class GaveWay(msgspec.Struct, frozen=True, tag="gaveway"):
    """It made its checkpoint and returned, as it was asked to."""


class Fatal(msgspec.Struct, frozen=True, tag="fatal"):
    """Last words of a worker that ends itself."""

    error: ErrorInfo


FromWorker = (
    Ready
    | Progress
    | Loaded
    | LoadError
    | Step
    | Suspended
    | Parked
    | Unparked
    | PrepareResults
    | Report
    | Told
    | Results
    | Calls
    | Asks
    | Waits
    | Checkpoint
    | Gather
    | Register
    | Returned
    | Raised
    | GaveWay
    | Fatal
)
