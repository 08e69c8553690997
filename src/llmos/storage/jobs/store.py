"""The JobStore over a database: SQLite in the home, or PostgreSQL shared by several kernels.

The statements are the same for both and lie beside this file, as functions of one transaction.
The store writes no events of its own: `state` events are the kernel's, by `note`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection

from llmos.abi.blob import BlobRef
from llmos.abi.jobs import (
    Attempt,
    Ended,
    Idempotency,
    JobEvent,
    JobFilter,
    JobProgress,
    JobRecord,
    JobState,
    NewEvent,
    ResultRow,
    Schedule,
)
from llmos.abi.principal import ServiceClass
from llmos.errors import ErrorInfo, StorageError
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.disk import finished
from llmos.storage.jobs import (
    claims,
    control,
    intake,
    journal,
    outcome,
    reads,
    retention,
    schedules,
)
from llmos.storage.jobs.exports import Exported, Exporter, add_files, drop_results, num_results
from llmos.storage.jobs.tx import Tx, find_current
from llmos.telemetry.faults import reached

if TYPE_CHECKING:  # it needs an extra
    from llmos.storage.jobs.leader import Leader

P = ParamSpec("P")
R = TypeVar("R")
_EXPORT_TRIES = 3


PROGRAMS_SHARE = 0.5
"""Of what new work leaves free, programs leave this: on a disk that a job has filled with results,
it must still be possible to cancel it."""


class Transactions(Protocol):
    """What the store needs of a database. `shared`: other kernels may write to it too."""

    @property
    def epoch(self) -> int: ...

    @property
    def shared(self) -> bool: ...

    async def write(self, fn: Callable[[Connection], R]) -> R:
        """Run `fn` in one transaction, durable when this returns."""
        ...

    async def read(self, fn: Callable[[Connection], R]) -> R:
        """Run `fn` on one consistent snapshot."""
        ...

    async def probe(self) -> None:
        """Prove that it takes writes, by one."""
        ...

    def close(self) -> None:
        """Blocking. Idempotent."""
        ...


class SqlJobStore:
    """Implements `abi.JobStore`. Holds nothing in memory but who waits for work."""

    def __init__(
        self, database: Transactions, exporter: Exporter, blobs: Blobs, config: StorageConfig
    ) -> None:
        self.database = database
        self._exporter = exporter
        self._blobs = blobs
        self._config = config
        self._work = asyncio.Event()
        self._leader: Leader | None = None
        self._num_recovered = 0

    async def follow(self, make: Callable[..., Leader]) -> None:
        """Lead only when the others do not: on a shared database."""
        self._leader = make(self._take_lead, self.wake)
        await self._leader.start()

    async def close(self) -> None:
        """Stop leading; the database is whoever's it was. Idempotent."""
        if self._leader is not None:
            await self._leader.close()

    async def _take_lead(self) -> None:
        self._num_recovered += await self._write(claims.take_lead)

    @property
    def leads(self) -> bool:
        """True while this kernel is the one that claims, recovers and fires."""
        return self._leader is None or self._leader.leads

    @property
    def epoch(self) -> int:
        """The number of this server run in this database."""
        return self.database.epoch

    async def _write(
        self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        def run(connection: Connection) -> tuple[R, bool]:
            tx = Tx(connection, self.epoch, self._config, self.database.shared)
            result = fn(tx, *args, **kwargs)
            tx.end()
            return result, tx.wakes

        result, wakes = await self.database.write(run)
        if wakes:
            self._work.set()
        return result

    async def probe(self) -> None:
        """Prove that jobs can be written, by a write. Raises StorageError, DiskFull."""
        await self.database.probe()

    def wake(self) -> None:
        """There may be something to claim."""
        self._work.set()

    async def wait_for_work(self, timeout_s: float) -> None:
        """As `abi.JobStore`. One waiter at a time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._work.wait()
        except TimeoutError:
            return
        self._work.clear()

    async def add(
        self, jobs: Sequence[JobRecord], idempotency: Idempotency | None = None
    ) -> list[JobRecord]:
        self._blobs.require_free(0)  # what is left below the floor is for what was accepted
        return await self._write(intake.add, jobs, idempotency)

    async def claim(self, limit: int, now_ns: int) -> list[JobRecord]:
        if not self.leads:
            return []
        return await self._write(claims.claim, limit, now_ns)

    async def release(self, job_ids: Sequence[str]) -> None:
        await self._write(claims.release, job_ids)

    async def next_due_ns(self) -> int | None:
        return await self.database.read(reads.next_due_ns)

    async def recover(self, now_ns: int | None = None) -> int:
        if not self.leads:
            return 0
        num, self._num_recovered = self._num_recovered, 0
        if now_ns is not None:
            await self._write(claims.end_long_waits, now_ns)
        return num + await self._write(claims.recover)

    async def begin(self, job_id: str, now_ns: int) -> Attempt | None:
        return await self._write(claims.begin, job_id, now_ns)

    async def progress(self, attempt: Attempt, progress: JobProgress) -> bool:
        return await self._write(journal.progress, attempt, progress)

    async def append(self, attempt: Attempt, events: Sequence[NewEvent]) -> int | None:
        self._blobs.require_free(0, PROGRAMS_SHARE)
        return await self._write(journal.append, attempt, events)

    async def note(self, job_id: str, events: Sequence[NewEvent]) -> int | None:
        return await self._write(journal.note, job_id, events)

    async def put_results(self, attempt: Attempt, rows: Sequence[ResultRow]) -> bool:
        self._blobs.require_free(sum(len(row.body) for row in rows), PROGRAMS_SHARE)
        return await self._write(journal.put_results, attempt, rows)

    async def result_keys(self, job_id: str) -> list[tuple[str, str]]:
        return await self.database.read(lambda c: journal.result_keys(c, job_id))

    async def gather(self, attempt: Attempt, stream: str, path: str) -> bool:
        self._blobs.require_free(0, PROGRAMS_SHARE)
        write = functools.partial(
            self._exporter.gather, attempt=attempt, stream=stream, path=Path(path)
        )
        return await finished(self.database.read(write))

    async def checkpoint(self, attempt: Attempt, state: BlobRef) -> bool:
        kept = await self._write(journal.checkpoint, attempt, state)
        self._blobs.settle(state.digest)
        return kept

    async def requeue(
        self, attempt: Attempt, due_ns: int, reason: str, *, died: bool, error: ErrorInfo | None
    ) -> JobRecord | None:
        return await self._write(outcome.requeue, attempt, due_ns, reason, died=died, error=error)

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
        end = outcome.Outcome(state, reason, time.time_ns(), outputs, error)
        if not exports:
            return await self._write(outcome.finish, attempt, end)
        # to its end even when cancelled: the blobs are held until their rows are there
        return await finished(self._finish_exporting(attempt, end, exports))

    async def _finish_exporting(
        self, attempt: Attempt, end: outcome.Outcome, exports: dict[str, str]
    ) -> Ended | None:
        for _ in range(_EXPORT_TRIES):
            with self._blobs.hold() as hold:
                export = functools.partial(
                    self._exporter.export, attempt=attempt, names=exports, hold=hold
                )
                made = await self.database.read(export)
                if made is None:
                    return None
                stale, ended = await self._write(_finish_exported, attempt, end, made)
            if not stale:
                return ended
        raise StorageError(f"results of {attempt.job_id} kept coming while they were exported")

    async def cancel(self, job_id: str, reason: str) -> list[JobRecord]:
        return await self._write(control.cancel, job_id, reason, time.time_ns())

    async def suspend(self, job_id: str, reason: str) -> JobRecord:
        return await self._write(control.suspend, job_id, reason)

    async def resume(self, job_id: str, reason: str) -> JobRecord:
        return await self._write(control.resume, job_id, reason)

    async def renice(
        self, job_id: str, nice: int | None, service_class: ServiceClass | None
    ) -> JobRecord:
        return await self._write(control.renice, job_id, nice, service_class)

    async def retry(self, job_id: str, reason: str) -> JobRecord:
        return await self._write(control.retry, job_id, reason)

    async def remove(self, job_id: str) -> JobRecord:
        return await self._write(control.remove, job_id)

    async def get(self, job_id: str) -> JobRecord:
        return await self.database.read(lambda c: reads.get(c, job_id))

    async def page(self, query: JobFilter) -> list[JobRecord]:
        return await self.database.read(lambda c: reads.page(c, query))

    async def count(self) -> dict[JobState, int]:
        return await self.database.read(reads.count)

    async def events(
        self, job_id: str, after: int = 0, limit: int = 1000, kinds: Sequence[str] = ()
    ) -> list[JobEvent]:
        return await self.database.read(lambda c: journal.events(c, job_id, after, limit, kinds))

    async def add_schedule(self, schedule: Schedule) -> Schedule:
        return await self._write(schedules.add_schedule, schedule)

    async def list_schedules(self, tenant_id: str | None) -> list[Schedule]:
        return await self.database.read(lambda c: schedules.list_schedules(c, tenant_id))

    async def remove_schedule(self, schedule_id: str) -> Schedule:
        return await self._write(schedules.remove_schedule, schedule_id)

    async def fire_schedules(self, now_ns: int) -> list[JobRecord]:
        if not self.leads:
            return []
        return await self._write(schedules.fire, now_ns)

    async def retain(self, now_ns: int) -> int:
        return await self._write(retention.retain, now_ns)


def _finish_exported(
    tx: Tx, attempt: Attempt, end: outcome.Outcome, made: Exported
) -> tuple[bool, Ended | None]:
    """The end and its files, together. (True, None): there are newer results than were exported."""
    row = find_current(tx, attempt)
    if row is None:
        return False, None
    if num_results(tx.connection, attempt.job_id) != made.num_rows:
        return True, None
    told = dict(end.outputs or {})
    told["files"] = {**told.get("files", {}), **add_files(tx, row, made, end.now_ns)}
    # any other may be retried, and goes on from its results
    if end.state is JobState.SUCCEEDED and row.cancel_reason is None:
        drop_results(tx, attempt.job_id)
    reached("jobs.finish.exported")
    return False, outcome.finish(tx, attempt, dataclasses.replace(end, outputs=told))
