"""One worker process as the kernel knows it, and who is told what workers say."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmos.abi import worker as msg
from llmos.abi.channel import Channel
from llmos.abi.driver import DriverEntry, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.node import WorkerHandle
from llmos.abi.syscall import WorkerInfo
from llmos.errors import ErrorInfo, LLMOSError
from llmos.kernel.lanes import Lane

SNAPSHOTS = "snapshots"
"""In a replica's scratch folder, where it was given no other for them."""


class Observer(Protocol):
    """Who is told what workers say. Called on the event loop's thread; must not block."""

    def on_loaded(self, replica_id: str, report: LoadReport) -> None: ...

    def on_refused(self, replica_id: str, error: ErrorInfo) -> None: ...

    def on_gone(self, replica_id: str, error: ErrorInfo | None) -> None: ...

    def on_parked(self, replica_id: str, message: msg.Parked) -> None: ...

    def on_unparked(self, replica_id: str, message: msg.Unparked) -> None: ...

    def on_suspended(self, replica_id: str, message: msg.Suspended) -> None: ...

    def on_report(self, replica_id: str, report: msg.Report) -> None: ...

    def on_step(self, replica_id: str, step: msg.Step) -> None: ...

    def on_prepared(self, lane: Lane, results: msg.PrepareResults) -> None: ...

    def on_tokenizer(
        self, lane: Lane, channel: Channel | None, error: ErrorInfo | None
    ) -> None: ...


class Programs(Protocol):
    """Who is told what program workers say. As `Observer`."""

    def on_program_up(self, job_id: str) -> None: ...

    def on_program(self, job_id: str, message: Any) -> None: ...

    def on_program_gone(self, job_id: str, error: ErrorInfo | None) -> None: ...

    def on_spare_gone(self, error: ErrorInfo | None) -> None: ...


class WorkerState(enum.StrEnum):
    """STARTING → SPARE → LOADING → SERVING → STOPPING → gone; tokenizers and programs load
    nothing."""

    STARTING = "starting"
    SPARE = "spare"
    LOADING = "loading"
    SERVING = "serving"
    STOPPING = "stopping"


def drop_scratch(scratch: Path, worker_id: str, replica_id: str | None) -> None:
    """What a worker leaves when it is gone: its own folder, and its replica's but for snapshots,
    which others may go on from. Blocking; what cannot go now goes when a server starts."""
    shutil.rmtree(scratch / worker_id, ignore_errors=True)
    if replica_id is None:
        return
    folder = scratch / replica_id
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            elif path.name != SNAPSHOTS:
                shutil.rmtree(path, ignore_errors=True)
    for left in (folder / SNAPSHOTS, folder):
        with contextlib.suppress(OSError):  # there are some
            left.rmdir()


@dataclass(slots=True, eq=False)
class Worker:
    """One process. `death` is why we killed it, when we did; `num_oom_kills` how many processes
    the system had killed for want of memory when it began. `lane`: a tokenizer's. `detail`:
    what its driver says of itself, in words."""

    worker_id: str
    role: msg.WorkerRole
    driver: DriverEntry | None
    started_ns: int
    lane: Lane | None = None
    state: WorkerState = WorkerState.STARTING
    handle: WorkerHandle | None = None
    python: str = ""
    replica_id: str | None = None
    load: ReplicaSpec | None = None
    job_id: str | None = None
    run: msg.Run | None = None
    is_frozen: bool = False
    load_timer: asyncio.TimerHandle | None = None
    last_heard_ns: int = 0
    probe_sent: float | None = None
    stopped_s: float | None = None
    memory: MemoryReport | None = None
    health: Health | None = None
    num_oom_kills: int | None = None
    death: LLMOSError | None = None

    def info(self) -> WorkerInfo:
        return WorkerInfo(
            worker_id=self.worker_id,
            role=self.role,
            pid=self.handle.pid if self.handle else 0,
            state=self.state,
            replica_id=self.replica_id,
            started_ns=self.started_ns,
            last_heard_ns=self.last_heard_ns,
        )
