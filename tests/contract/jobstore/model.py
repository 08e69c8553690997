"""What a JobStore should do, in a page of dictionaries. Written from the contract, not the code."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmos.abi.jobs import ENDED, JobState

B, P, R, S = JobState.BLOCKED, JobState.PENDING, JobState.RUNNING, JobState.SUSPENDED
OK, CANCELLED = JobState.SUCCEEDED, JobState.CANCELLED


@dataclass
class Job:
    """`held`: claimed, or an attempt goes on, by the kernel of now. `marked`: to be ended."""

    needs: set[str]
    parent: str | None
    rank: int
    order: int
    state: JobState = P
    due: int = 0
    held: bool = False
    starts: int = 0
    attempt: int = 0
    deaths: int = 0
    marked: bool = False
    results: dict[str, bytes] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)


class Model:
    """Jobs by id. An attempt is (job, number); that of an older kernel is known by `epoch`."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.epoch = 1
        self.current: dict[str, tuple[int, int]] = {}

    def add(self, job_id: str, job: Job) -> None:
        job.met = {need for need in job.needs if self.jobs[need].state is OK}
        self.jobs[job_id] = job
        if any(self.jobs[n].state in ENDED - {OK} for n in job.needs):
            job.state = CANCELLED
        elif job.needs - job.met:
            job.state = B

    def claim(self, limit: int, now: int) -> list[str]:
        free = [i for i, j in self.jobs.items() if j.state is P and not j.held and j.due <= now]
        taken = sorted(free, key=lambda i: (self.jobs[i].rank, self.jobs[i].order))[:limit]
        for job_id in taken:
            self.jobs[job_id].held = True
        return taken

    def release(self, job_id: str) -> None:
        if self.jobs[job_id].state is P:
            self.jobs[job_id].held = False
            # what was due once stays so
            self.jobs[job_id].due = 0

    def begin(self, job_id: str) -> tuple[int, int] | None:
        job = self.jobs[job_id]
        if job.state is not P or not job.held:
            return None
        job.state, job.due = R, 0
        job.starts += 1
        job.attempt += 1
        self.current[job_id] = (job.starts, self.epoch)
        return self.current[job_id]

    def is_current(self, job_id: str, attempt: tuple[int, int]) -> bool:
        return self.current.get(job_id) == attempt

    def requeue(self, job_id: str, attempt: tuple[int, int], due: int, died: bool) -> bool:
        if not self.is_current(job_id, attempt):
            return False
        job = self.jobs[job_id]
        del self.current[job_id]
        job.held, job.due = False, due
        job.deaths += died
        job.state = S if job.state is S else P
        return True

    def finish(self, job_id: str, attempt: tuple[int, int], state: JobState) -> bool:
        if not self.is_current(job_id, attempt):
            return False
        job = self.jobs[job_id]
        job.deaths += state is JobState.DEAD
        self._end(job_id, CANCELLED if job.marked and state is OK else state)
        return True

    def cancel(self, job_id: str) -> None:
        job = self.jobs[job_id]
        if job.state in ENDED:
            return
        was_marked, job.marked = job.marked, True
        if job_id not in self.current:
            self._end(job_id, CANCELLED)
        elif not was_marked:
            self._cancel_children(job_id)

    def _end(self, job_id: str, state: JobState) -> None:
        job = self.jobs[job_id]
        job.state, job.held = state, False
        self.current.pop(job_id, None)
        for other_id, other in list(self.jobs.items()):
            if job_id not in other.needs or other.state in ENDED:
                continue
            if state is OK:
                other.met.add(job_id)
                if other.state is B and other.met == other.needs:
                    other.state = P
            elif job_id not in other.met:
                self.cancel(other_id)
        self._cancel_children(job_id)

    def _cancel_children(self, job_id: str) -> None:
        for other_id, other in list(self.jobs.items()):
            if other.parent == job_id:
                self.cancel(other_id)

    def suspend(self, job_id: str) -> bool:
        job = self.jobs[job_id]
        if job.state in ENDED:
            return False
        job.state, job.held = S, job_id in self.current
        return True

    def resume(self, job_id: str) -> bool:
        job = self.jobs[job_id]
        if job.state is not S:
            return False
        job.state = R if job_id in self.current else B if job.needs - job.met else P
        return True

    def retry(self, job_id: str) -> bool:
        job = self.jobs[job_id]
        if job.state not in ENDED or job.state is OK:
            return False
        # what it needs may have succeeded after it had ended itself
        met = job.met | {need for need in job.needs if self.jobs[need].state is OK}
        unmet = job.needs - met
        if any(self.jobs[need].state in ENDED for need in unmet):
            return False
        job.state, job.met = B if unmet else P, met
        job.attempt = job.deaths = job.due = 0
        job.marked = False
        return True

    def restart(self) -> int:
        """The kernel dies and another recovers; how many were running."""
        self.epoch += 1
        num = sum(job.state is R for job in self.jobs.values())
        for job in self.jobs.values():
            if job.held or job.state is R:
                job.due = 0 if job.state is not S else job.due
                job.held = False
                job.state = P if job.state is R else job.state
        self.current.clear()
        return num
