"""System calls: what a front end sends to the gate, and what comes back.

Every message carries `call`, a number the front end chose, unique on its channel. A unary call is
answered by one `Reply` or `Refused`. `Infer` is answered by `Refused`, or by `Reply(Accepted)` and
then `Emit`s whose last event is terminal. `Pull`, `Quantize` and `FollowJob` emit, and
end with a `Reply`.
"""

from __future__ import annotations

import msgspec

from llmos.abi.driver import MemoryReport
from llmos.abi.events import Event
from llmos.abi.feedback import FeedbackBody, FeedbackResult
from llmos.abi.inference import GENERATE, Options, Prompt, Sampling
from llmos.abi.jobs import JobEvent
from llmos.abi.memory import MemoryInfo
from llmos.abi.principal import Key, Principal, Role, ServiceClass
from llmos.abi.registry import ModelVersion, PullOptions, PullProgress
from llmos.abi.spent import Spent
from llmos.abi.syscall_jobs import JobBody, JobResult
from llmos.errors import ErrorInfo

# bodies of calls


class Infer(msgspec.Struct, frozen=True, tag="infer"):
    """Generate, or do whatever kind of work `prompt` names.

    `route` names the front door (`chat`, `completions`), for metrics and records.
    """

    model: str
    prompt: Prompt
    sampling: Sampling
    options: Options = Options()
    route: str = "chat"


class ListModels(msgspec.Struct, frozen=True, tag="models.list"):
    pass


class ShowModel(msgspec.Struct, frozen=True, tag="models.show"):
    ref: str


class PullModel(msgspec.Struct, frozen=True, tag="models.pull"):
    source: str
    name: str | None = None
    options: PullOptions = PullOptions()


class QuantizeModel(msgspec.Struct, frozen=True, tag="models.quantize"):
    """Make a new version with weights `to` (`int8`, `int4`) of one that is there: progress, then a
    `Model`. `name` None: that of the source, and `to`."""

    ref: str
    to: str
    name: str | None = None


class RemoveModel(msgspec.Struct, frozen=True, tag="models.remove"):
    ref: str


class AliasModel(msgspec.Struct, frozen=True, tag="models.alias"):
    """Let `name:alias` be this version from now on; answered by a `Model`, as it then stands."""

    ref: str
    alias: str
    reason: str = ""


class UnaliasModel(msgspec.Struct, frozen=True, tag="models.unalias"):
    """`ref` is `name:alias`, which is nothing any more; answered by the `Model` it was."""

    ref: str


class LoadModel(msgspec.Struct, frozen=True, tag="models.load"):
    """Make a replica resident; answered when it is ready.

    `keep_alive_s`: how long it then stays unused, from now on; None: as it was. `dtype`: what its
    weights have in memory, until it is unloaded or loaded in another; None: as it was. `draft`: a
    smaller model with the same tokens that guesses ahead, as long; None: as it was.
    """

    ref: str
    keep_alive_s: float | None = None
    dtype: str | None = None
    draft: str | None = None


class UnloadModel(msgspec.Struct, frozen=True, tag="models.unload"):
    """Stop the model's replicas; running requests finish first, or are suspended for a while.

    A pin ends with it.
    """

    ref: str


class PinModel(msgspec.Struct, frozen=True, tag="models.pin"):
    """Load the model and keep it, whatever else needs room; or with `pinned` False no longer.

    Answered when it is ready.
    """

    ref: str
    pinned: bool = True


class ShowMemory(msgspec.Struct, frozen=True, tag="memory.show"):
    """Who holds how much of what, by the ledger and as measured."""


class ListReplicas(msgspec.Struct, frozen=True, tag="replicas.list"):
    pass


class ListWorkers(msgspec.Struct, frozen=True, tag="workers.list"):
    pass


class ListProcesses(msgspec.Struct, frozen=True, tag="processes.list"):
    pass


class ShowProcess(msgspec.Struct, frozen=True, tag="processes.show"):
    """Its story: every decision about it, with reasons."""

    process_id: str


class NiceProcess(msgspec.Struct, frozen=True, tag="processes.nice"):
    """Change how urgent a live process is. None: as it was."""

    process_id: str
    nice: int | None = None
    service_class: ServiceClass | None = None


class WaitProcess(msgspec.Struct, frozen=True, tag="processes.wait"):
    """Answered when it has ended, or after `timeout_s` with how it is then."""

    process_id: str
    timeout_s: float = 60.0


class KillProcess(msgspec.Struct, frozen=True, tag="processes.kill"):
    process_id: str


class SuspendProcess(msgspec.Struct, frozen=True, tag="processes.suspend"):
    """Off the machine until it is resumed: a request by snapshot, a job by checkpoint, or frozen
    where it has none. Of a request, answered when its state is safe."""

    process_id: str


class ResumeProcess(msgspec.Struct, frozen=True, tag="processes.resume"):
    process_id: str


class AttachStream(msgspec.Struct, frozen=True, tag="streams.attach"):
    """Go on reading a request's stream after its event number `after` (0: from the first).

    Answered as `Infer` is. Raises NotFound, OffsetLost.
    """

    request_id: str
    after: int


class Status(msgspec.Struct, frozen=True, tag="status"):
    pass


class Health(msgspec.Struct, frozen=True, tag="health"):
    """The one call that needs no principal."""


class AddKey(msgspec.Struct, frozen=True, tag="keys.add"):
    name: str
    tenant: str
    role: Role = Role.USER
    max_class: ServiceClass = ServiceClass.INTERACTIVE
    weight: float = 1.0


class ListKeys(msgspec.Struct, frozen=True, tag="keys.list"):
    pass


class RevokeKey(msgspec.Struct, frozen=True, tag="keys.revoke"):
    key: str


Body = (
    Infer
    | ListModels
    | ShowModel
    | PullModel
    | QuantizeModel
    | RemoveModel
    | AliasModel
    | UnaliasModel
    | LoadModel
    | UnloadModel
    | PinModel
    | ShowMemory
    | ListReplicas
    | ListWorkers
    | ListProcesses
    | ShowProcess
    | NiceProcess
    | WaitProcess
    | KillProcess
    | SuspendProcess
    | ResumeProcess
    | AttachStream
    | JobBody
    | FeedbackBody
    | Status
    | Health
    | AddKey
    | ListKeys
    | RevokeKey
)

# results


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The core took the request; what follows is its stream, from event `after` + 1 on.

    `tool_format`: how calls of tools are written in it, empty where none are looked for.
    `kind` is what it does: what was asked for, or else what the model is for.
    """

    request_id: str
    model: str
    prompt_tokens: int
    service_class: ServiceClass
    deterministic: bool | None
    created_ns: int
    after: int = 0
    tool_format: str = ""
    kind: str = GENERATE


class ModelList(msgspec.Struct, frozen=True, tag="r.models"):
    models: list[ModelVersion]


class Model(msgspec.Struct, frozen=True, tag="r.model"):
    model: ModelVersion


class ReplicaInfo(msgspec.Struct, frozen=True):
    """A resident (or starting, parked, stopping, failed) model version. Times are UTC in ns.

    `num_paused` requests keep their KV on it without a row. `dtype_reason`: why its weights have
    that type; `warnings`: what is slower or less so than it could be; `engine`: what runs it.
    `draft`: the model that guesses ahead for it, if one does; of `num_guessed` tokens guessed ahead
    since it was loaded, `num_accepted` came.
    that type; `warnings`: what is slower or less so than it could be. `detail`:
    what its driver is about beside requests, in words.
    """

    replica_id: str
    model: str
    driver: str
    state: str
    worker_id: str | None
    num_slots: int
    num_running: int
    num_waiting: int
    reserved_bytes: int
    memory: MemoryReport | None
    dtype: str
    device: str
    deterministic: bool | None
    since_ns: int
    reason: str
    num_restarts: int
    num_paused: int = 0
    keep_alive_s: float | None = None
    pinned: bool = False
    dtype_reason: str = ""
    warnings: list[str] = []
    engine: str = ""
    draft: str = ""
    num_guessed: int = 0
    num_accepted: int = 0
    detail: str = ""


class ReplicaList(msgspec.Struct, frozen=True, tag="r.replicas"):
    replicas: list[ReplicaInfo]


class WorkerInfo(msgspec.Struct, frozen=True):
    worker_id: str
    role: str
    pid: int
    state: str
    replica_id: str | None
    started_ns: int
    last_heard_ns: int


class WorkerList(msgspec.Struct, frozen=True, tag="r.workers"):
    workers: list[WorkerInfo]


class ProcessInfo(msgspec.Struct, frozen=True):
    """A line of `ps`. `reason` says why it is in this state. `cached_tokens` of the prompt were
    found in a prefix cache, which is known when it has ended. `driver` serves the model, and why.

    `spent` is known of a request that has ended. Of a job, `model` is its program, `progress` in
    0..1 what it has done of all it knows of.
    """

    process_id: str
    kind: str
    state: str
    model: str
    tenant_id: str
    principal: str
    service_class: ServiceClass
    nice: int
    prompt_tokens: int
    completion_tokens: int
    created_ns: int
    started_ns: int | None
    ended_ns: int | None
    reason: str
    eta_s: float | None = None
    name: str = ""
    parent_id: str | None = None
    progress: float | None = None
    cached_tokens: int = 0
    driver: str = ""
    spent: Spent | None = None


class Decided(msgspec.Struct, frozen=True):
    """One decision about a process: when (UTC, ns), the state it led to, and why."""

    at_ns: int
    state: str
    reason: str


class ProcessStory(msgspec.Struct, frozen=True, tag="r.process"):
    """A process and every decision about it, oldest first."""

    info: ProcessInfo
    decisions: list[Decided]


class ProcessList(msgspec.Struct, frozen=True, tag="r.processes"):
    processes: list[ProcessInfo]


class StatusInfo(msgspec.Struct, frozen=True, tag="r.status"):
    """`ready` is true when a request would be served; `problems` say why not.

    `waiting` counts what is queued by class (its lower-case name). `num_tokens` were generated
    since the start.
    """

    ready: bool
    problems: list[str]
    version: str
    epoch: int
    started_ns: int
    num_queued: int
    num_running: int
    memory_total_bytes: int
    memory_budget_bytes: int
    memory_reserved_bytes: int
    policy: str = ""
    waiting: dict[str, int] = {}
    num_tokens: int = 0


class HealthReport(msgspec.Struct, frozen=True, tag="r.health"):
    """`ready` as in `StatusInfo`; `live`: the core took a step and the store a write just now."""

    ready: bool
    problems: list[str]
    live: bool = True


class KeyList(msgspec.Struct, frozen=True, tag="r.keys"):
    keys: list[Key]


class NewKey(msgspec.Struct, frozen=True, tag="r.key"):
    """`secret` is shown this once."""

    key: Key
    secret: str


class RevokedKey(msgspec.Struct, frozen=True, tag="r.revoked"):
    key: Key


class Done(msgspec.Struct, frozen=True, tag="r.done"):
    """It was done, and there is nothing to tell."""

    what: str = ""


Result = (
    Accepted
    | ModelList
    | Model
    | ReplicaList
    | MemoryInfo
    | WorkerList
    | ProcessList
    | ProcessStory
    | StatusInfo
    | HealthReport
    | KeyList
    | NewKey
    | RevokedKey
    | JobResult
    | FeedbackResult
    | Done
)

# front end -> gate


class Syscall(msgspec.Struct, frozen=True, tag="call"):
    call: int
    principal: Principal | None
    body: Body
    trace_parent: str | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """The client left, or lost interest. Ends a stream with `Aborted`."""

    call: int
    reason: str


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """Credit: `num_events` events were delivered to the client since the last Ack."""

    call: int
    num_events: int


ToGate = Syscall | Cancel | Ack

# gate -> front end


class Reply(msgspec.Struct, frozen=True, tag="reply"):
    call: int
    result: Result


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    call: int
    error: ErrorInfo


class Emit(msgspec.Struct, frozen=True, tag="emit"):
    call: int
    events: list[Event | PullProgress | JobEvent]


FromGate = Reply | Refused | Emit
