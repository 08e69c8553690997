"""A job this kernel has claimed, as the edge knows it: its record, its attempt, its loose ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from llmos.abi.jobs import INFER, Attempt, JobProgress, JobRecord
from llmos.abi.policy import Waiting
from llmos.abi.program import ProgramEntry
from llmos.errors import ErrorInfo
from llmos.kernel.core.jobs import JobFacts, Outcome
from llmos.kernel.core.limits import NS
from llmos.kernel.jobs.desk import Desk
from llmos.kernel.jobs.teller import Teller
from llmos.kernel.jobs.writer import Writer


@dataclass(slots=True, eq=False)
class Entry:
    """`is_begun`: on its way to a worker, or further. `outcome` and what belongs to it are known
    before its worker is gone. `is_killed`: it was to end before its worker was there. `rates` are
    (monotonic s, done) for the time left.
    `cpu_s` and `peak_bytes` are its worker's, as last seen."""

    record: JobRecord
    program: ProgramEntry | None
    attempt: Attempt | None = None
    writer: Writer | None = None
    desk: Desk | None = None
    call: asyncio.Task[None] | None = None
    teller: Teller | None = None
    is_begun: bool = False
    takes_spare: bool = False
    is_killed: bool = False
    is_lost: bool = False
    outcome: Outcome | None = None
    outputs: dict[str, Any] | None = None
    error: ErrorInfo | None = None
    traceback: str = ""
    frozen_s: float | None = None
    cpu_s: float = 0.0
    peak_bytes: int = 0
    progress: JobProgress | None = None
    rates: list[tuple[float, float]] = field(default_factory=list)

    @property
    def job_id(self) -> str:
        return self.record.job_id

    @property
    def is_call(self) -> bool:
        return self.record.spec.program == INFER

    def note_progress(self, progress: JobProgress) -> None:
        """Of the newest and of some earlier moments the rate is made."""
        now_s = time.monotonic()
        if not self.rates or progress.done < self.rates[-1][1]:
            self.rates = [(now_s, progress.done)]
        elif progress.done > self.rates[-1][1]:
            self.rates.append((now_s, progress.done))
            if len(self.rates) > RATES_KEPT:
                del self.rates[0]
        self.progress = progress

    def see_use(self, cpu_s: float, rss_bytes: int) -> None:
        """Of its worker, now: one that is gone tells nothing, and takes nothing back."""
        self.cpu_s = max(self.cpu_s, cpu_s)
        self.peak_bytes = max(self.peak_bytes, rss_bytes)

    def eta_s(self) -> float | None:
        """Seconds left at the rate of late; None while there is no rate or no total."""
        progress = self.progress
        if progress is None or not progress.total or len(self.rates) < 2:
            return None
        (then_s, then), (_, done) = self.rates[0], self.rates[-1]
        now_s = time.monotonic()
        rate = (done - then) / max(now_s - then_s, 1e-3)
        return max(0.0, (progress.total - done) / rate)


RATES_KEPT = 32


def facts_of(entry: Entry, arrival: int, budget_bytes: int) -> JobFacts:
    """What the core is told. Times of the wall become times of its clock here."""
    record, program = entry.record, entry.program
    spec, owner, now_ns = record.spec, record.principal, time.monotonic_ns()
    waiting = Waiting(
        request_id=record.job_id,
        arrival=arrival,
        ready_ns=now_ns,
        service_class=min(spec.service_class, owner.max_class),
        nice=spec.nice,
        tenant_id=owner.tenant_id,
        principal_id=owner.principal_id,
        weight=owner.weight,
        prompt_tokens=0,
        expected_tokens=0,
    )
    expires_ns = None
    if spec.expires_ns is not None:
        expires_ns = now_ns + max(0, spec.expires_ns - time.time_ns())
    memory_bytes = spec.memory_bytes or (program.memory_bytes if program else 0)
    return JobFacts(
        waiting=waiting,
        memory_bytes=0 if entry.is_call else min(memory_bytes, budget_bytes),
        is_call=entry.is_call,
        compute=program.compute if program else False,
        checkpoints=program.checkpoints if program else False,
        may_use_spare=not program.python if program else False,
        max_attempts=spec.max_attempts,
        num_deaths=record.num_deaths,
        num_failures=record.num_failures,
        timeout_ns=None if spec.timeout_s is None else int(spec.timeout_s * NS),
        expires_ns=expires_ns,
    )
