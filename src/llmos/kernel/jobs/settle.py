"""How attempts end on disk: the outcome after all that came before it, tried until durable."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from llmos.abi.jobs import SPENT, Attempt, Ended, JobRecord, JobState, JobStore, NewEvent
from llmos.errors import ErrorInfo, LLMOSError
from llmos.kernel.core import decisions as do
from llmos.kernel.jobs.disk import PASSING, Disk
from llmos.kernel.jobs.entry import Entry
from llmos.kernel.jobs.notes import Notes
from llmos.kernel.spending import Spending
from llmos.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Settler:
    """Each method returns the other jobs that changed with the one that ended."""

    def __init__(
        self,
        store: JobStore,
        entries: dict[str, Entry],
        disk: Disk,
        notes: Notes,
        *,
        metrics: Metrics,
        spending: Spending,
    ) -> None:
        self._store = store
        self._entries = entries
        self._disk = disk
        self._notes = notes
        self._metrics = metrics
        self._spending = spending

    async def finish(self, decision: do.FinishJob) -> Sequence[JobRecord]:
        """For good, with what it put out and what it left."""
        entry = self._entries[decision.job_id]
        await self._put_away(entry)
        assert entry.attempt is not None
        if decision.state is JobState.DEAD:
            self._metrics.job_deaths.labels(entry.record.spec.program).inc()
        exports = entry.program.exports if entry.program else None
        return await self._end(
            entry,
            entry.attempt,
            decision.state,
            decision.reason,
            outputs=entry.outputs,
            error=decision.error,
            exports=exports,
        )

    async def _end(
        self,
        entry: Entry,
        attempt: Attempt,
        state: JobState,
        reason: str,
        *,
        outputs: dict[str, Any] | None,
        error: ErrorInfo | None,
        exports: dict[str, str] | None,
    ) -> Sequence[JobRecord]:
        store = self._store
        try:
            ended = await self._disk.surely(
                "finish",
                lambda: store.finish(
                    attempt, state, reason, outputs=outputs, error=error, exports=exports
                ),
            )
        except LLMOSError as refused:  # what it put out is not to be kept: it fails for that
            log.warning("the outputs of %s were refused: %s", attempt.job_id, refused)
            why, info = str(refused), refused.to_info()
            ended = await self._disk.surely(
                "finish", lambda: store.finish(attempt, JobState.FAILED, why, error=info)
            )
        return await self._ended(entry, ended)

    async def _ended(self, entry: Entry, ended: Ended | None) -> Sequence[JobRecord]:
        if ended is None:  # an old attempt: the job is someone else's
            return []
        job = ended.job
        self._metrics.job_ends.labels(job.state).inc()
        if not entry.is_call or job.state is not JobState.SUCCEEDED:
            self._notes.add(job.job_id, job.state, job.reason)
        for other in ended.cascaded:
            self._notes.add(other.job_id, other.state, other.reason)
        for other in ended.unblocked:
            self._notes.add(other.job_id, other.state, other.reason or "what it needs is done")
        await self._notes.drain()
        return [*ended.cascaded, *ended.unblocked]

    async def requeue(self, decision: do.RequeueJob) -> Sequence[JobRecord]:
        """It comes back, here or elsewhere."""
        entry = self._entries[decision.job_id]
        await self._put_away(entry)
        attempt = entry.attempt
        assert attempt is not None
        if decision.died:
            self._metrics.job_deaths.labels(entry.record.spec.program).inc()
        due_ns = time.time_ns() + decision.delay_ns
        job = await self._disk.surely(
            "requeue",
            lambda: self._store.requeue(
                attempt, due_ns, decision.reason, died=decision.died, error=decision.error
            ),
        )
        if job is None:
            return []
        if job.cancel_reason is not None:
            return await self.end_cancelled(job)
        self._notes.add(job.job_id, job.state, decision.reason)
        await self._notes.drain()
        return []

    async def end_cancelled(self, job: JobRecord) -> Sequence[JobRecord]:
        """Marked to end while its end as something else was under way: it runs no more."""
        job_id, reason = job.job_id, job.cancel_reason or "cancelled"
        touched = await self._disk.surely("cancel", lambda: self._store.cancel(job_id, reason))
        for other in touched:
            self._notes.add(other.job_id, other.state, reason)
        await self._notes.drain()
        return [other for other in touched if other.job_id != job_id]

    async def end_unstarted(
        self, entry: Entry, reason: str, error: ErrorInfo
    ) -> Sequence[JobRecord]:
        """A claimed job that is to end without ever running: begun, and failed at once."""
        job_id = entry.job_id
        attempt = await self._disk.surely(
            "begin", lambda: self._store.begin(job_id, time.time_ns())
        )
        if attempt is None:
            return []
        entry.attempt = attempt
        exports = entry.program.exports if entry.program else None
        return await self._end(
            entry, attempt, JobState.FAILED, reason, outputs=None, error=error, exports=exports
        )

    async def _put_away(self, entry: Entry) -> None:
        """All it told is on disk before its outcome is."""
        if entry.writer is not None:
            await entry.writer.drain()
        events, attempt, now_ns = self._used(entry), entry.attempt, time.time_ns()
        if entry.traceback:
            traceback = {"text": entry.traceback, "way": "traceback"}
            events.append(NewEvent(now_ns, "log", traceback))
        if events and attempt is not None and not entry.is_lost:
            try:
                await self._disk.once("append", lambda: self._store.append(attempt, events))
            except PASSING:
                log.warning("the last lines of the log of %s were not kept", entry.job_id)

    def _used(self, entry: Entry) -> list[NewEvent]:
        """What the attempt has used, for its log; a call's is in the story of its request."""
        program = entry.record.spec.program
        spent = self._spending.job_ended(entry.job_id, program, entry.cpu_s, entry.peak_bytes)
        if entry.is_call:
            return []
        return [NewEvent(time.time_ns(), SPENT, msgspec.to_builtins(spent))]
