"""The process table: every request the gate let in, and the recent past."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from dataclasses import dataclass, field

from llmos.abi.events import Aborted, Failed, Finished, Terminal
from llmos.abi.inference import Prepared, Usage
from llmos.abi.principal import Principal, ServiceClass
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import Infer, ProcessInfo
from llmos.kernel.stream import Stream


class Phase(enum.StrEnum):
    """Where a process is, for people. The core's own states are finer."""

    PREPARING = "preparing"
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Process:
    """One request. Times are UTC in ns for people, `*_mono` monotonic ns for durations."""

    request_id: str
    principal: Principal
    version: ModelVersion
    body: Infer
    service_class: ServiceClass
    stream: Stream
    created_ns: int
    created_mono: int
    trace_parent: str | None = None
    prepared: Prepared | None = None
    phase: Phase = Phase.PREPARING
    reason: str = "tokenizing"
    started_ns: int | None = None
    started_mono: int = 0
    first_token_mono: int = 0
    last_token_mono: int = 0
    num_tokens: int = 0
    ended_ns: int | None = None
    cancel_reason: str | None = None
    usage: Usage = field(default_factory=Usage)

    def end(self, event: Terminal, now_ns: int) -> None:
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

    def info(self) -> ProcessInfo:
        return ProcessInfo(
            process_id=self.request_id,
            kind="request",
            state=self.phase,
            model=self.version.ref,
            tenant_id=self.principal.tenant_id,
            principal=self.principal.name,
            service_class=self.service_class,
            nice=self.body.options.nice,
            prompt_tokens=self.prepared.num_tokens if self.prepared else 0,
            completion_tokens=self.num_tokens,
            created_ns=self.created_ns,
            started_ns=self.started_ns,
            ended_ns=self.ended_ns,
            reason=self.reason,
        )


class ProcessTable:
    """Live processes by id; ended ones in order, bounded."""

    def __init__(self, ended_kept: int) -> None:
        self.live: dict[str, Process] = {}
        self.ended: deque[ProcessInfo] = deque(maxlen=ended_kept)
        self.empty = asyncio.Event()
        self.empty.set()

    def add(self, process: Process) -> None:
        self.live[process.request_id] = process
        self.empty.clear()

    def retire(self, process: Process) -> None:
        """From live to ended. Idempotent."""
        if self.live.pop(process.request_id, None) is not None:
            self.ended.append(process.info())
        if not self.live:
            self.empty.set()
