"""The Driver seam: one adapter per engine, running alone in a worker process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import msgspec

from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Event
from llmos.abi.inference import Prepared, PrepareItem, WorkItem
from llmos.abi.registry import AdapterForm

DRAFTED_REQUESTS = 4
"""Of so many requests at once, at most, a driver keeps the KV that a draft model makes of them."""


class Capabilities(msgspec.Struct, frozen=True):
    """What a driver can do; the kernel never asks for what is not listed.

    `snapshots` False means a suspended request is recomputed, from `WorkItem.generated`, which
    every driver takes. `parks`: it can give back a loaded model's memory and have it again in
    little more than the time of reading the bytes. `drafts`: a smaller model may guess tokens
    ahead. `formats` are the weight formats it reads.
    `egress` are the hosts (`name:port`) it must reach, `secrets` the names of those it wants to be
    given; both empty for a driver that needs no network, and known once a model is loaded.
    `features`: of `FEATURES`, what it can do to an answer. `adapters`: the forms of adapters it
    loads a version with.
    """

    driver: str
    kinds: list[str]
    formats: list[str]
    snapshots: bool = False
    parks: bool = False
    drafts: bool = False
    attach: bool = False
    deterministic: bool = False
    egress: list[str] = []
    secrets: list[str] = []
    features: list[str] = []
    adapters: list[AdapterForm] = []


FEATURES = ("grammar", "logit_bias", "logprobs", "prompt_logprobs")
"""What a request may ask for that not every driver can do; fields of `Sampling`."""


class Secret(msgspec.Struct, frozen=True):
    """Never shown by accident: its text says nothing. It crosses one socket, to one worker."""

    value: str

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


class DraftSpec(msgspec.Struct, frozen=True):
    """A smaller model of the same vocabulary that guesses tokens ahead. `ref` names it to people;
    the others are as in `ReplicaSpec`."""

    ref: str
    folder: str
    weights_digest: str
    dtype: str = "auto"


class ReplicaSpec(msgspec.Struct, frozen=True):
    """What to load: a read-only model folder, a private scratch folder, limits.

    `num_slots` requests may be in the batch at once, each of at most `context_length` tokens.
    `num_threads` 0: as many as the driver finds good.
    `dtype`: `auto` is the type of the files where the device computes with it, `int8` and `int4`
    are quantized on the way in. `deterministic` None: the driver's committed default for the device
    and dtype. `snapshots` is
    the folder that suspended requests are written to where `suspend` names no other, made when it
    is missing; what has to outlive the worker must lie outside of its scratch folder. Empty:
    `snapshots` of the scratch folder. `secrets`: those of the model's that are set, by name.
    `draft`: only with `Capabilities.drafts`. `cache` is a folder for what makes a later load of
    this model quicker and can always be made again, compiled code say; it outlives the worker, and
    workers of one model share it. Empty: `cache` of the scratch folder. Whoever writes much to a
    disk leaves `min_free_bytes` of it free.
    """

    model_id: str
    folder: str
    scratch: str
    weights_digest: str
    context_length: int
    num_slots: int
    num_threads: int
    dtype: str = "auto"
    device: str = "cpu"
    deterministic: bool | None = None
    options: dict[str, Any] = {}
    snapshots: str = ""
    secrets: dict[str, Secret] = {}
    draft: DraftSpec | None = None
    cache: str = ""
    min_free_bytes: int = 0


class MemoryReport(msgspec.Struct, frozen=True):
    """Measured memory of the host in bytes: resident set, weights, KV reserved and in use.

    `bound_bytes`: what the process may come to hold as it is now, which is what is resident and
    what it has allocated and not touched yet; of a parked one, what it keeps but for clean pages of
    files; 0: not known. `peak_bytes`: the most it ever held. `device_bytes`: of the device the
    model is on, where that has memory of its own. `kv_cached_bytes`: KV that no request uses now,
    kept for prompts that begin alike until its room is wanted.
    """

    rss_bytes: int
    weights_bytes: int = 0
    kv_reserved_bytes: int = 0
    kv_used_bytes: int = 0
    bound_bytes: int = 0
    peak_bytes: int = 0
    device_bytes: int = 0
    kv_cached_bytes: int = 0


class DtypeChoice(msgspec.Struct, frozen=True):
    """The type a model's weights have in memory, or would have. `reason` and `warnings` (it may be
    slower so) are for people."""

    dtype: str
    reason: str = ""
    warnings: list[str] = []


class LoadReport(msgspec.Struct, frozen=True):
    """What was loaded, as it is. `warnings` are for people: what is slower or less than asked;
    `engine` as well: what runs the model, and why that."""

    dtype: str
    device: str
    deterministic: bool
    context_length: int
    num_slots: int
    memory: MemoryReport
    warnings: list[str] = []
    engine: str = ""


class Health(msgspec.Struct, frozen=True):
    """A driver's own view of itself. Since it was loaded, so many tokens were guessed ahead, and
    so many of those were what came."""

    ok: bool
    num_running: int = 0
    num_paused: int = 0
    detail: str = ""
    num_guessed: int = 0
    num_accepted: int = 0


class DriverEntry(msgspec.Struct, frozen=True):
    """How to run a driver: entry string, interpreter (empty: ours), memory without a model.

    `least_slots`: of a driver whose requests take next to no memory, so many may run at once.
    `load_s`: what its loads may take beside what the size of a model allows, such as compiling.

    `snapshots`, `parks`, `drafts` and `features` are its capabilities, known before a worker of it
    has started; `engine` is what it runs on, with versions, as far as that is known: footprints
    hold for it alone.
    """

    name: str
    entry: str
    python: str = ""
    base_bytes: int = 0
    snapshots: bool = False
    parks: bool = False
    engine: str = ""
    least_slots: int = 1
    drafts: bool = False
    features: list[str] = []
    load_s: float = 0.0


class Driver(Protocol):
    """Called by one thread only. No method but `load` and `step` may take long; `suspend` and
    `resume` take as long as their bytes.

    Errors: methods raise `LLMOSError` subclasses only; engine exceptions are mapped inside. A
    failure of one request is a `Failed` event of that request, never an exception out of `step`;
    what `step` raises ends the worker.
    """

    capabilities: Capabilities

    def load(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> LoadReport:
        """Make the model resident. `progress(fraction, what)`. Raises LoadFailed, ModelRejected."""
        ...

    def unload(self) -> None: ...

    def submit(self, item: WorkItem) -> None:
        """Join the batch at the next step. Raises UserError for what this driver cannot honour."""
        ...

    def step(self) -> list[Event]:
        """One iteration of the engine: the events of every request that moved."""
        ...

    def wait_s(self) -> float | None:
        """Seconds until `step` has work: 0 now, None not before the next call (or, of a `Waking`
        driver, before it wakes)."""
        ...

    def pause(self, request_id: str) -> None:
        """Give up the row in the batch, keep the KV in place. Unknown ids are ignored."""
        ...

    def unpause(self, request_id: str) -> None: ...

    def abort(self, request_id: str, reason: str) -> None:
        """Free the slot now; the next step yields `Aborted`. Unknown ids are ignored.

        Of a request that this driver suspended, and did not resume, the snapshot is deleted.
        """
        ...

    def park(self) -> MemoryReport:
        """Give back all memory that can be had again cheaply: KV, caches, the pages of weights.

        Only with `capabilities.parks`, and with no request here (else Conflict). Until `unpark`
        nothing but `health`, `memory`, `unpark` and `unload` is called. Idempotent.
        """
        ...

    def unpark(self) -> MemoryReport:
        """As after `load`: every row free, weights resident. Raises LoadFailed; then the replica
        is of no use any more. Idempotent."""
        ...

    def suspend(self, request_id: str, folder: str = "") -> SnapshotRef:
        """Write all state of a request to a file and forget the request, paused or not.

        `folder`: where to; empty: as `ReplicaSpec.snapshots` says.
        Only with `capabilities.snapshots`. Raises NotFound (not here, or it has ended), DiskFull
        and StorageError: then the request goes on as if nothing had been asked, and nothing is
        left on the disk. The file belongs to whoever holds the reference.
        """
        ...

    def resume(self, item: WorkItem, snapshot: SnapshotRef) -> None:
        """Go on from a snapshot, in any row, not paused; nothing that was said is said again.

        `item` is the one submitted at first; only its class and trace may differ. The file is
        read whole before anything changes here, and stays where it is. Raises SnapshotRejected,
        ContextLengthExceeded, Conflict (the request is here).
        """
        ...

    def attach(self, program: str, budget: dict[str, float]) -> None:
        """Run a program on the loaded replica between steps. Only with `capabilities.attach`."""
        ...

    def health(self) -> Health: ...

    def memory(self) -> MemoryReport: ...


@runtime_checkable
class Waking(Protocol):
    """A driver that work comes to by itself, from a network: nobody needs to ask it again and
    again."""

    def wake_fd(self) -> int:
        """Readable while `step` has work. From `load` to `unload` the same."""
        ...


class Preparer(Protocol):
    """The torch-free half of a driver: turns prompts into tokens, in the tokenizer worker.

    An entry string names a callable `make(folder: str) -> Preparer`, cached per folder.
    """

    def prepare(self, item: PrepareItem) -> Prepared:
        """Raises InvalidRequest (template, token id out of the vocabulary)."""
        ...
