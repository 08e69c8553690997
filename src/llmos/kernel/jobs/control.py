"""A job under the hand of an operator: everything one can do to a process, done to a job."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from llmos.abi.jobs import ENDED, JobFilter, JobRecord, JobState
from llmos.abi.principal import ServiceClass
from llmos.abi.syscall import ProcessInfo, ProcessStory
from llmos.errors import Conflict, LLMOSError
from llmos.kernel.jobs.disk import PASSING
from llmos.kernel.jobs.view import info_of, story_of

if TYPE_CHECKING:
    from llmos.kernel.jobs.runner import Runner

STATES_KEPT = 200
"""Decisions told by `why`: of very many, the first and the last."""

PAGE = 1000


class JobControl:
    """Implements `controls.Control`. The store is told first, the core by what it says."""

    def __init__(self, jobs: Runner, record: JobRecord) -> None:
        self._jobs = jobs
        self._record = record
        self.process_id = record.job_id
        self.tenant_id = record.principal.tenant_id

    def info(self) -> ProcessInfo:
        return info_of(
            self._record,
            self._jobs.entries.get(self.process_id),
            self._jobs.find_core(self.process_id),
        )

    async def story(self) -> ProcessStory:
        """From the store: also of a job that ended before this server began."""
        after, kept = await self._first_kept(), []
        while page := await self._jobs.store.events(self.process_id, after, PAGE, ["state"]):
            after = page[-1].number
            kept += page
            if len(kept) > STATES_KEPT:
                del kept[STATES_KEPT // 2 : len(kept) - STATES_KEPT // 2]
        return story_of(self.info(), self._record, kept)

    async def _first_kept(self) -> int:
        """Of a very long log the beginning is gone: the number before its first event kept."""
        try:
            await self._jobs.store.events(self.process_id, 0, 1)
        except LLMOSError as lost:
            return int(lost.details.get("first", 1)) - 1
        return 0

    async def ended(self, timeout_s: float) -> ProcessStory:
        """When it has ended for good, or after `timeout_s` as it is then."""
        jobs, deadline_s = self._jobs, time.monotonic() + timeout_s
        with jobs.hub.follow(self.process_id) as follower:
            while True:
                follower.clear()
                self._record = await jobs.store.get(self.process_id)
                over = self._record.state in ENDED and self.process_id not in jobs.entries
                left_s = deadline_s - time.monotonic()
                if over or left_s <= 0:
                    return await self.story()
                await follower.wait(min(left_s, jobs.config.poll_interval_s))

    async def renice(self, nice: int | None, service_class: ServiceClass | None, by: str) -> str:
        """Takes effect at once, in its queue or when its slot is asked for."""
        job_id, store = self.process_id, self._jobs.store
        record = await self._write("renice", lambda: store.renice(job_id, nice, service_class))
        spec = record.spec
        reason = f"set to class {spec.service_class.name.lower()}, nice {spec.nice} by {by}"
        self._jobs.reniced(record)
        self._jobs.note(job_id, record.state, reason)
        return reason

    async def kill(self, by: str) -> str:
        """As `CancelJob`."""
        if self._record.state in ENDED:
            raise Conflict(f"{self.process_id} has ended already: {self._record.state}")
        record = await self._jobs.cancel(self.process_id, f"killed by {by}")
        return "has ended" if record.state in ENDED else "is being ended"

    async def suspend(self, by: str) -> str:
        """Until it is resumed, restarts included."""
        job_id, store, reason = self.process_id, self._jobs.store, f"suspended by {by}"
        record = await self._write("suspend", lambda: store.suspend(job_id, reason))
        self._jobs.note(job_id, JobState.SUSPENDED, reason)
        self._jobs.absorb([record])
        return "is suspended"

    async def resume(self, by: str) -> str:
        """Where it was frozen, from its checkpoint, or back in the queue."""
        job_id, store, reason = self.process_id, self._jobs.store, f"resumed by {by}"
        record = await self._write("resume", lambda: store.resume(job_id, reason))
        self._jobs.note(job_id, record.state, reason)
        self._jobs.resumed(record)
        return f"is {record.state}"

    async def _write(self, what: str, work: Callable[[], Awaitable[JobRecord]]) -> JobRecord:
        self._record = await self._jobs.disk.once(what, work)
        return self._record


LISTED = 200


async def job_infos(jobs: Runner) -> list[ProcessInfo]:
    """Those this kernel holds, and the newest others, live and ended."""
    records = {entry.job_id: entry.record for entry in list(jobs.entries.values())}
    live = [state for state in JobState if state not in ENDED]
    with contextlib.suppress(*PASSING):  # what is at work is known without the store
        for states in (live, list(ENDED)):
            for record in await jobs.store.page(JobFilter(states=states, limit=LISTED)):
                records[record.job_id] = record
    return [
        info_of(record, jobs.entries.get(job_id), jobs.find_core(job_id))
        for job_id, record in sorted(records.items(), reverse=True)
    ]
