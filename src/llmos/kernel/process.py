"""The process table: every request the gate let in, and the recent past."""

from __future__ import annotations

import asyncio
import enum
import time
from array import array
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Aborted, Failed, Finished, Served, Terminal
from llmos.abi.inference import GENERATE, Prepared, Usage, WorkItem
from llmos.abi.principal import Principal, ServiceClass
from llmos.abi.registry import ModelVersion
from llmos.abi.spent import Spent
from llmos.abi.suspended import Tier
from llmos.abi.syscall import Decided, Infer, ProcessInfo, ProcessStory
from llmos.kernel.stream import Stream
from llmos.telemetry.tracer import Trace

HISTORY_KEPT = 200


def cache_salt(tenant_id: str, wished: str | None) -> str:
    """Under which what is cached of a request is found: always within its tenant.

    `wished` parts it further. An id of a tenant has no slash, so no wish reads as another tenant.
    """
    return tenant_id if wished is None else f"{tenant_id}/{wished}"


class Phase(enum.StrEnum):
    """Where a process is, for people. The core's own states are finer."""

    PREPARING = "preparing"
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    FINISHED = "finished"
    FAILED = "failed"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Process:
    """One request. Times are UTC in ns for people, `*_mono` monotonic ns for durations.

    `kind` is what it asks its model for. `generated` are its tokens so far (of items, the numbers
    of those that are answered), `resubmitted` those it was last submitted with, when it had to be
    computed again. `snapshot` is the file it can go on from, `snapshot_tier` where it was written;
    `is_recorded`: the next server would go on with it, `is_filed`: there may be a record.
    `is_forgotten`: its worker was told to drop it without one. `is_recomputing`: its snapshot was
    refused. `filing` is held while its files change. `trace` is there when it is traced. `cpu_s`
    and `engine_s` are as in `Spent`; `device` is that of its last replica.
    """

    request_id: str
    principal: Principal
    version: ModelVersion
    body: Infer
    service_class: ServiceClass
    stream: Stream
    created_ns: int
    created_mono: int
    nice: int = 0
    trace_parent: str | None = None
    trace: Trace | None = None
    parent_id: str | None = None
    kind: str = GENERATE
    prepared: Prepared | None = None
    phase: Phase = Phase.PREPARING
    reason: str = "tokenizing"
    started_ns: int | None = None
    started_mono: int = 0
    first_token_mono: int = 0
    last_token_mono: int = 0
    num_tokens: int = 0
    num_preemptions: int = 0
    generated: array[int] = field(default_factory=lambda: array("i"))
    resubmitted: bytes = b""
    snapshot: SnapshotRef | None = None
    suspending_mono: int = 0
    num_suspensions: int = 0
    num_recomputed: int = 0
    is_held: bool = False
    snapshot_tier: Tier = Tier.DISK
    is_filed: bool = False
    is_recorded: bool = False
    is_forgotten: bool = False
    is_recomputing: bool = False
    filing: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended_ns: int | None = None
    cancel_reason: str | None = None
    expected_start_ns: int | None = None
    history: list[Decided] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    cpu_s: float = 0.0
    engine_s: float = 0.0
    device: str = ""
    spent: Spent | None = None

    def note(self, reason: str) -> None:
        """One more decision about it, for `why`. Of very many, the first and the last are kept."""
        self.reason = reason
        if len(self.history) >= HISTORY_KEPT:
            del self.history[HISTORY_KEPT // 2]
        self.history.append(Decided(time.time_ns(), self.phase, reason))

    def end(self, event: Terminal, now_ns: int, account: str = "") -> None:
        """Take the outcome over from the terminal event."""
        self.ended_ns = now_ns
        self.usage = event.usage
        if isinstance(event, Finished):
            self.phase, self.reason = Phase.FINISHED, str(event.reason)
        elif isinstance(event, Failed):
            self.phase, self.reason = Phase.FAILED, f"{event.error.code}: {event.error.message}"
        else:
            assert isinstance(event, Aborted)
            self.phase, self.reason = Phase.ABORTED, event.reason
        self.note(f"{self.reason}; {account}" if account else self.reason)

    def renice(self, nice: int | None, service_class: ServiceClass | None, by: str) -> None:
        """What people see of it; the core is told by an event."""
        self.expected_start_ns = None  # it was predicted for the other class, or place
        self.nice = self.nice if nice is None else nice
        self.service_class = self.service_class if service_class is None else service_class
        self.note(f"set to class {self.service_class.name.lower()}, nice {self.nice} by {by}")

    def served(self) -> Served:
        """For its client, at the end."""
        queued_s = (self.started_mono - self.created_mono) / 1e9
        return Served(
            queued_s,
            self.num_preemptions,
            self.service_class,
            self.num_suspensions,
            self.num_recomputed,
        )

    def item(self) -> WorkItem:
        """For its worker: the same each time, but for what it had made when it was recomputed."""
        options, prepared = self.body.options, self.prepared
        assert prepared is not None
        return WorkItem(
            request_id=self.request_id,
            tokens=prepared.tokens,
            sampling=self.body.sampling,
            grammar=prepared.grammar,
            shown=prepared.shown,
            cache_salt=cache_salt(self.principal.tenant_id, options.cache_salt),
            trace_parent=self.trace_parent,
            deterministic=options.deterministic,
            options=options.driver,
            service_class=self.service_class,
            generated=self.resubmitted,
            kind=self.kind,
            payload=prepared.payload,
            spill=prepared.spill,
        )

    def recomputed(self) -> WorkItem:
        """As `item`, to go on after the tokens there are."""
        self.resubmitted = self.generated.tobytes()
        return self.item()

    def info(self) -> ProcessInfo:
        """Its line of `ps`."""
        return ProcessInfo(
            process_id=self.request_id,
            kind="request",
            state=self.phase,
            model=self.version.ref,
            tenant_id=self.principal.tenant_id,
            principal=self.principal.name,
            service_class=self.service_class,
            nice=self.nice,
            prompt_tokens=self.prepared.num_tokens if self.prepared else 0,
            completion_tokens=self.num_tokens,
            created_ns=self.created_ns,
            started_ns=self.started_ns,
            ended_ns=self.ended_ns,
            reason=self.reason,
            eta_s=self._eta_s(),
            parent_id=self.parent_id,
            cached_tokens=self.usage.cached_tokens,
            driver=self._driver(),
            spent=self.spent,
        )

    def _driver(self) -> str:
        """Who serves its model, and why."""
        name, chosen = self.version.driver, self.version.chosen
        if (adapter := self.version.adapter) is not None:
            over = f"{adapter.base} with the {adapter.method} adapter {self.version.ref}"
            return f"{name}: {over}; {chosen}"
        return f"{name}: {chosen}" if chosen else name

    def _eta_s(self) -> float | None:
        """Predicted seconds until it has a row; None once it had one, or should have had it."""
        if self.phase is not Phase.WAITING or self.expected_start_ns is None:
            return None
        left_s = (self.expected_start_ns - time.time_ns()) / 1e9
        return left_s if left_s > 0 else None

    def story(self) -> ProcessStory:
        """All that is known of it."""
        return ProcessStory(self.info(), list(self.history))


class ProcessTable:
    """Live processes by id; ended ones for a bounded time and up to a bounded number."""

    def __init__(self, ended_kept: int, ended_kept_s: float) -> None:
        self.live: dict[str, Process] = {}
        self._ended: OrderedDict[str, ProcessStory] = OrderedDict()
        self._ended_kept = ended_kept
        self._ended_kept_ns = int(ended_kept_s * 1e9)
        self._watchers: dict[str, list[asyncio.Future[ProcessStory]]] = {}
        self._num_of_tenant: Counter[str] = Counter()
        self._away: set[str] = set()
        self.empty = asyncio.Event()
        """Nothing is live but what was put away for the next server."""
        self.empty.set()

    def add(self, process: Process) -> None:
        self.live[process.request_id] = process
        self._num_of_tenant[process.principal.tenant_id] += 1
        self._see_empty()

    def put_away(self, request_id: str) -> None:
        """It is held, and the next server can go on with it: a stopping one need not wait."""
        self._away.add(request_id)
        self._see_empty()

    def come_back(self, request_id: str) -> None:
        """It is wanted here again."""
        self._away.discard(request_id)
        self._see_empty()

    def _see_empty(self) -> None:
        if len(self._away) == len(self.live):
            self.empty.set()
        else:
            self.empty.clear()

    def num_live_of(self, tenant_id: str) -> int:
        """How many of a tenant's live, in any state."""
        return self._num_of_tenant[tenant_id]

    def retire(self, process: Process) -> None:
        """From live to ended. Idempotent."""
        if self.live.pop(process.request_id, None) is not None:
            story = process.story()
            self._ended[process.request_id] = story
            if len(self._ended) > self._ended_kept:
                self._ended.popitem(last=False)
            self._forget_old()
            self._count_down(process.principal.tenant_id)
            for watcher in self._watchers.pop(process.request_id, ()):
                if not watcher.done():
                    watcher.set_result(story)
        self.come_back(process.request_id)

    def _count_down(self, tenant_id: str) -> None:
        self._num_of_tenant[tenant_id] -= 1
        if not self._num_of_tenant[tenant_id]:
            del self._num_of_tenant[tenant_id]

    def infos(self) -> list[ProcessInfo]:
        """Live ones first, then ended ones, newest first."""
        self._forget_old()
        live = [process.info() for process in self.live.values()]
        return live + [story.info for story in reversed(self._ended.values())]

    def find_story(self, process_id: str) -> ProcessStory | None:
        """Of a live process, or of an ended one that is still remembered."""
        self._forget_old()
        process = self.live.get(process_id)
        return process.story() if process else self._ended.get(process_id)

    def when_ended(self, process_id: str) -> asyncio.Future[ProcessStory]:
        """The live process's story when it has ended, however short that is remembered."""
        future: asyncio.Future[ProcessStory] = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(process_id, []).append(future)
        return future

    def forget_watcher(self, process_id: str, watcher: asyncio.Future[ProcessStory]) -> None:
        """Whoever waited does so no more. Idempotent."""
        watchers = self._watchers.get(process_id, [])
        if watcher in watchers:
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[process_id]

    def _forget_old(self) -> None:
        limit_ns = time.time_ns() - self._ended_kept_ns
        while self._ended:
            story = next(iter(self._ended.values()))
            if (story.info.ended_ns or 0) >= limit_ns:
                return
            self._ended.popitem(last=False)
