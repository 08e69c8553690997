"""Claims jobs from the store, carries out what the core decides about them, tells it what came."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from llmos.abi.jobs import ENDED, JobRecord, JobState
from llmos.abi.program import ProgramEntry
from llmos.errors import LLMOSError
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.jobs import Job, JobPhase
from llmos.kernel.core.limits import NS
from llmos.kernel.core.state import State
from llmos.kernel.jobs.attempts import Attempts
from llmos.kernel.jobs.config import JobsConfig
from llmos.kernel.jobs.disk import PASSING, Disk
from llmos.kernel.jobs.entry import Entry, facts_of
from llmos.kernel.jobs.hub import Hub
from llmos.kernel.jobs.notes import Notes
from llmos.kernel.jobs.schedules import end_revoked
from llmos.kernel.jobs.services import JobServices
from llmos.kernel.jobs.settle import Settler
from llmos.kernel.spending import Spending
from llmos.kernel.workers import Workers
from llmos.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

NOBODY = -1
"""Below every class: no job was submitted since the last claim."""

FIRE_INTERVAL_S = 0.25
RELEASE_TIMEOUT_S = 2.0

MADE_WAY = 16
"""So many of the least urgent claimed jobs go back when more urgent ones find the window full."""


class Runner:
    """One per kernel. It decides nothing: the core does, and the store says what is true."""

    def __init__(
        self,
        services: JobServices,
        *,
        state: State,
        post: Callable[[ev.CoreEvent], None],
        workers: Workers,
        config: JobsConfig,
        metrics: Metrics,
        spending: Spending,
    ) -> None:
        self.config = config
        self.store = services.store
        self.entries: dict[str, Entry] = {}
        self.hub = Hub()
        self.disk = Disk(config.retry_min_s, config.retry_max_s, metrics)
        self.notes = Notes(services.store, self.disk, self.hub.tell)
        self.num_recovered = 0
        self._services = services
        self._state = state
        self._post = post
        self._workers = workers
        self._metrics = metrics
        self._arrivals = itertools.count(1)
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._fresh = NOBODY
        self._clock_ahead_ns = time.time_ns() - time.monotonic_ns()
        self._fresh_tenants: set[str] = set()
        self._fires_s = 0.0
        self._is_closing = False
        self._is_failed: BaseException | None = None
        self._again: dict[str, JobRecord] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self.attempts = Attempts(
            services,
            entries=self.entries,
            disk=self.disk,
            post=post,
            workers=workers,
            config=config,
            hub=self.hub,
        )
        self._settler = Settler(
            self.store, self.entries, self.disk, self.notes, metrics=metrics, spending=spending
        )
        workers.programs = self.attempts
        self.appliers: dict[type, Callable[[Any], None]] = {
            do.StartJob: self._start,
            do.AskJob: self._ask,
            do.FreezeJob: self._freeze,
            do.ThawJob: self._thaw,
            do.KillJob: self._kill,
            do.FinishJob: self._finish,
            do.RequeueJob: self._requeue,
            do.ExpireJob: self._expire,
            do.StartSpare: lambda _: workers.start_spare_program(),
            do.StopSpare: lambda _: workers.stop_spare_program(),
        }

    # life

    def start(self) -> None:
        """Returns at once; what dead servers left is recovered first."""
        for work in (self._claims(), self._measure(), self._retain()):
            self._loops.append(asyncio.get_running_loop().create_task(work))
            self._loops[-1].add_done_callback(self._ended_badly)

    def wake(self) -> None:
        """There may be jobs to claim."""
        self._wake.set()

    def submitted(self, record: JobRecord) -> None:
        """Somebody's new job is in the store."""
        self._fresh = max(self._fresh, int(record.spec.service_class))
        self._fresh_tenants.add(record.principal.tenant_id)
        self.wake()

    async def wait_idle(self) -> None:
        """Until nothing of a job is at work or on its way to disk."""
        while any(entry.is_begun for entry in self.entries.values()):
            self._settled.clear()
            await self._settled.wait()

    async def stop_claiming(self) -> None:
        """What was claimed and has not started is anyone's again."""
        self._is_closing = True
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._give_back(self._queued())

    async def close(self, timeout_s: float) -> None:
        """What was decided gets on disk, if it can in that time; else the next server finds it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.wait_idle()
                await self.notes.drain()
        for task in self._tasks:
            task.cancel()

    def problems(self) -> list[str]:
        """Why jobs would not be taken or run."""
        found = []
        if self.disk.problem is not None:
            found.append(f"jobs cannot be written: {self.disk.problem.message}")
        if self._is_failed is not None:
            found.append(f"a job could not be handled: {self._is_failed}")
        return found

    # what handlers tell

    def absorb(self, records: Iterable[JobRecord]) -> None:
        """The store has changed them: what of it concerns the core is posted."""
        for record in records:
            entry = self.entries.get(record.job_id)
            self.hub.tell(record.job_id)
            if entry is None:
                continue
            entry.record = record
            if record.state in ENDED:
                self._drop(record.job_id)
            elif record.cancel_reason is not None:
                self._post(ev.JobCancelled(record.job_id, record.cancel_reason))
            elif record.state is JobState.SUSPENDED:
                self._post(ev.JobSuspended(record.job_id, record.reason))
                self._forget_queued(record.job_id)
        self.wake()

    async def cancel(self, job_id: str, reason: str) -> JobRecord:
        """The job and its descendants. Raises NotFound."""
        begun_ns = time.time_ns()
        changed = await self.disk.once("cancel", lambda: self.store.cancel(job_id, reason))
        for record in changed:
            if record.ended_ns is not None and record.ended_ns < begun_ns:
                continue  # it had ended before
            state = record.state if record.state in ENDED else "stopping"
            self.note(record.job_id, state, record.cancel_reason or reason)
        self.absorb(changed)
        return next(record for record in changed if record.job_id == job_id)

    def find_core(self, job_id: str) -> Job | None:
        """As the core sees it; None for one this kernel does not hold."""
        return self._state.jobs.jobs.get(job_id)

    def resumed(self, record: JobRecord) -> None:
        self._post(ev.JobResumed(record.job_id))
        self.wake()

    def reniced(self, record: JobRecord) -> None:
        spec = record.spec
        if entry := self.entries.get(record.job_id):
            entry.record = record
        self._post(ev.JobReniced(record.job_id, spec.nice, spec.service_class))

    def note(self, job_id: str, state: str, reason: str) -> None:
        self.notes.add(job_id, state, reason)

    async def end_revoked_schedules(self, tenant_id: str | None = None) -> None:
        """Of keys that were revoked. Raises what the store raises; the next start tries again."""
        await end_revoked(self.store, self.disk, self._services.is_revoked, tenant_id)

    # claiming

    async def _claims(self) -> None:
        self.num_recovered = await self._recover()
        await self.disk.surely("unschedule", self.end_revoked_schedules)
        while True:
            self._wake.clear()
            wait_s = self.config.poll_interval_s
            if self._is_clock_set_back():
                await self._recover()
            try:
                wait_s = min(wait_s, await self._refill())
            except PASSING:
                wait_s = min(wait_s, self.config.retry_max_s)
            await self._news(wait_s)

    async def _recover(self) -> int:
        return await self.disk.surely("recover", lambda: self.store.recover(time.time_ns()))

    def _is_clock_set_back(self) -> bool:
        """Since the last look, by more than a correction."""
        ahead_ns = time.time_ns() - time.monotonic_ns()
        before_ns, self._clock_ahead_ns = self._clock_ahead_ns, ahead_ns
        return before_ns - ahead_ns > NS

    async def _news(self, timeout_s: float) -> None:
        """Until this kernel, or another one at the same store, has made some."""
        tasks = [
            asyncio.ensure_future(self._wake.wait()),
            asyncio.ensure_future(self.store.wait_for_work(timeout_s)),
        ]
        try:
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _refill(self) -> float:
        """Fill the window. How long until there may be more, in seconds."""
        store = self.store
        now_ns = time.time_ns()
        await self._fire(now_ns)
        room = await self._room()
        if room > 0:
            claimed = await self.disk.once("claim", lambda: store.claim(room, now_ns))
            for record in claimed:
                self._take(record)
        if room <= 0 or len(claimed) == room:
            return self.config.poll_interval_s  # or as soon as one of these has begun
        due_ns = await self.disk.once("due", store.next_due_ns)
        if due_ns is None:
            return self.config.poll_interval_s
        return max(0.01, (due_ns - time.time_ns()) / 1e9)

    async def _fire(self, now_ns: int) -> None:
        """Schedules go by the minute: not with every claim."""
        if time.monotonic() < self._fires_s:
            return
        self._fires_s = time.monotonic() + FIRE_INTERVAL_S
        for fired in await self.disk.once("fire", lambda: self.store.fire_schedules(now_ns)):
            self.note(fired.job_id, fired.state, "submitted by its schedule")

    async def _room(self) -> int:
        """How many to claim: not one at a time, unless there is news or nothing else to do.

        For the more urgent the least urgent of a full window go back, and for a tenant that has
        none in it some of the one that has most.
        """
        window, fresh, self._fresh = self.config.claim_window, self._fresh, NOBODY
        tenants, self._fresh_tenants = self._fresh_tenants, set()
        queued = self._queued()
        room = window - len(queued) - len(self._again)
        if room <= 0 and fresh > NOBODY:
            jobs = self._state.jobs.jobs
            lower = [j for j in queued if jobs[j].service_class < fresh]
            if not lower:
                holders = Counter(jobs[j].waiting.tenant_id for j in queued)
                (most, _), *_ = holders.most_common(1)
                if tenants - holders.keys():
                    lower = [j for j in queued if jobs[j].waiting.tenant_id == most]
            room = await self._give_back(lower[-MADE_WAY:])
        return room if fresh > NOBODY or room >= window // 4 or not queued else 0

    def _queued(self) -> list[str]:
        """Oldest first."""
        jobs = self._state.jobs.jobs
        return [j for j, job in jobs.items() if job.phase is JobPhase.QUEUED]

    async def _give_back(self, job_ids: list[str]) -> int:
        for job_id in job_ids:
            self._drop(job_id)
        if job_ids:
            await self._try_release(job_ids)
        return len(job_ids)

    def _take(self, record: JobRecord) -> None:
        """Post it; one that has not left the core yet waits for that."""
        if record.job_id in self.entries:
            self._again[record.job_id] = record
            return
        if record.cancel_reason is not None:
            self.entries[record.job_id] = Entry(record, None)
            self._task(self._settle(record.job_id, self._settler.end_cancelled(record)))
            return
        try:
            entry = Entry(record, self._program(record))
        except LLMOSError as error:
            entry = self.entries[record.job_id] = Entry(record, None)
            work = self._settler.end_unstarted(entry, error.message, error.to_info())
            self._task(self._settle(record.job_id, work))
            return
        self.entries[record.job_id] = entry
        if record.progress is not None:
            entry.progress = record.progress
        budget_bytes = self._state.ledger.budget_bytes
        self._post(ev.JobClaimed(facts_of(entry, next(self._arrivals), budget_bytes)))

    def _program(self, record: JobRecord) -> ProgramEntry | None:
        """Raises PluginError for a program that is not installed (any more)."""
        entry = Entry(record, None)
        return None if entry.is_call else self._services.program_of(record.spec.program)

    def _drop(self, job_id: str) -> None:
        self._post(ev.JobDropped(job_id))
        self._forget_queued(job_id)

    def _forget_queued(self, job_id: str) -> None:
        """Its entry, if it never began: the core drops it by an event of its own."""
        job = self._state.jobs.jobs.get(job_id)
        if job is None or job.phase is JobPhase.QUEUED:
            self.entries.pop(job_id, None)

    async def _try_release(self, job_ids: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self.disk.once("release", lambda: self.store.release(job_ids))
        except (*PASSING, TimeoutError):
            log.warning("%d claimed jobs were not released; the next start does it", len(job_ids))

    # decisions

    def _start(self, decision: do.StartJob) -> None:
        entry = self.entries[decision.job_id]
        entry.is_begun, entry.takes_spare = True, decision.takes_spare
        self._task(self._begin(entry, decision.reason))
        self.wake()

    async def _begin(self, entry: Entry, reason: str) -> None:
        job_id = entry.job_id
        try:
            attempt = await self.disk.once(
                "begin", lambda: self.store.begin(job_id, time.time_ns())
            )
        except PASSING:
            await self.disk.surely("release", lambda: self.store.release([job_id]))
            attempt = None
        if attempt is None:
            self._post(ev.JobNotBegun(job_id))
            self._gone(job_id)
            return
        entry.attempt = attempt
        self._metrics.job_attempts.labels(entry.record.spec.program).inc()
        if not entry.is_call or attempt.number > 1:
            self.note(job_id, "running", f"attempt {attempt.number}: {reason}")
        await self.attempts.begin(entry)

    def _ask(self, decision: do.AskJob) -> None:
        self.note(decision.job_id, "stopping" if decision.stop else "yielding", decision.reason)
        self.attempts.ask(self.entries[decision.job_id], decision.stop, decision.reason)

    def _freeze(self, decision: do.FreezeJob) -> None:
        if decision.is_told:
            self.note(decision.job_id, "frozen", decision.reason)
        self.entries[decision.job_id].frozen_s = time.monotonic()
        self._workers.freeze_program(decision.job_id, True)

    def _thaw(self, decision: do.ThawJob) -> None:
        if decision.is_told:
            self.note(decision.job_id, "running", decision.reason)
        self._count_frozen(self.entries[decision.job_id])
        self._workers.freeze_program(decision.job_id, False)

    def _count_frozen(self, entry: Entry) -> None:
        if entry.frozen_s is not None:
            frozen_s, entry.frozen_s = time.monotonic() - entry.frozen_s, None
            self._metrics.job_frozen.labels(entry.record.spec.program).inc(frozen_s)

    def _kill(self, decision: do.KillJob) -> None:
        self.note(decision.job_id, "stopping", f"killed: {decision.reason}")
        self.attempts.kill(self.entries[decision.job_id], decision.reason)

    def _finish(self, decision: do.FinishJob) -> None:
        self._task(self._settle(decision.job_id, self._settler.finish(decision)))

    def _requeue(self, decision: do.RequeueJob) -> None:
        self._task(self._settle(decision.job_id, self._settler.requeue(decision)))

    def _expire(self, decision: do.ExpireJob) -> None:
        entry = self.entries[decision.job_id]
        entry.is_begun = True
        work = self._settler.end_unstarted(entry, decision.reason, decision.error)
        self._task(self._settle(decision.job_id, work))

    async def _settle(self, job_id: str, work: Coroutine[Any, Any, Sequence[JobRecord]]) -> None:
        self._count_frozen(self.entries[job_id])
        touched = await work
        self._post(ev.JobSettled(job_id))
        self._gone(job_id)
        self.absorb(touched)
        await self._tell_children(job_id)

    async def _tell_children(self, parent_id: str) -> None:
        """Those of an ended job that run here: the store has marked them."""
        for entry in list(self.entries.values()):
            if entry.record.spec.parent_id == parent_id:
                child_id = entry.job_id
                record = await self.disk.surely("get", lambda i=child_id: self.store.get(i))  # type: ignore[misc]
                if record.cancel_reason is not None or record.state in ENDED:
                    self.absorb([record])

    def _gone(self, job_id: str) -> None:
        """It has left the core. It may have been claimed again already."""
        self.entries.pop(job_id, None)
        self.hub.tell(job_id)
        self._settled.set()
        again = self._again.pop(job_id, None)
        if again is not None and not self._is_closing:
            self._take(again)
        self.wake()

    async def _measure(self) -> None:
        """What workers have used, and their memory against what they may have."""
        while True:
            for job_id, rss_bytes in self._workers.program_rss():
                if (entry := self.entries.get(job_id)) is not None:
                    entry.see_use(*self._workers.program_use(job_id))
                job = self._state.jobs.active.get(job_id)
                if job is not None and rss_bytes > job.facts.memory_bytes:
                    self._post(ev.JobTooBig(job_id, rss_bytes))
            await asyncio.sleep(self.config.measure_interval_s)

    async def _retain(self) -> None:
        while True:
            await asyncio.sleep(self.config.retain_interval_s)
            with contextlib.suppress(*PASSING):  # the rest goes the next time
                while await self.disk.once("retain", lambda: self.store.retain(time.time_ns())):
                    pass

    def gauge(self) -> None:
        """Jobs by phase, as they are now."""
        phases = [job.phase for job in self._state.jobs.jobs.values()]
        for phase in JobPhase:
            self._metrics.jobs.labels(phase).set(phases.count(phase))

    # tasks

    def _task(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended_badly)
        task.add_done_callback(self._tasks.discard)

    def _ended_badly(self, task: asyncio.Task[None]) -> None:
        """A bug of ours: readiness says so, and the next server takes the job up again."""
        if not task.cancelled() and task.exception() is not None:
            self._is_failed = task.exception()
            log.error("a job could not be handled", exc_info=self._is_failed)
