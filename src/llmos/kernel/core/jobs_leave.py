"""How a job is made to leave its worker: asked first, killed when its grace is over."""

from __future__ import annotations

from llmos.kernel.core import decisions as do
from llmos.kernel.core.jobs import COMES_BACK, Ending, Job, JobPhase
from llmos.kernel.core.state import State


def send_away(state: State, job: Job, ending: Ending, reason: str, now_ns: int) -> None:
    """Have it leave, for the strongest reason there is; one that starts hears it when it runs."""
    if not job.wants_out(ending, reason) or job.phase is JobPhase.STARTING:
        return
    comes_back = ending in COMES_BACK
    if job.phase is JobPhase.STOPPING or (comes_back and job.phase is JobPhase.YIELDING):
        return  # it has been told already
    thaw(state, job, reason, now_ns)
    job.move(JobPhase.YIELDING if comes_back else JobPhase.STOPPING, reason)
    job.kill_ns = now_ns + state.limits.jobs.grace_ns
    state.out.append(do.AskJob(job.job_id, not comes_back, reason))
    look_at(state, job, job.kill_ns)
    state.jobs.is_dirty = True


def kill(state: State, job: Job, reason: str) -> None:
    """No more grace."""
    if not job.is_killed:
        job.is_killed = True
        if job.phase not in (JobPhase.STARTING, JobPhase.STOPPING):
            job.move(JobPhase.STOPPING, reason)
        state.out.append(do.KillJob(job.job_id, reason))


def freeze(state: State, job: Job, reason: str, now_ns: int) -> None:
    """Where it is, with all it holds but the processor."""
    job.move(JobPhase.FROZEN, reason)
    job.frozen_at_ns = now_ns
    state.out.append(do.FreezeJob(job.job_id, reason, _is_told(job)))


def thaw(state: State, job: Job, reason: str, now_ns: int) -> None:
    """It goes on where it was. Nothing for one that is not frozen."""
    if job.phase is not JobPhase.FROZEN:
        return
    job.move(JobPhase.WAITING if job.is_idle else JobPhase.RUNNING, reason)
    job.frozen_ns += now_ns - job.frozen_at_ns
    job.thawed_ns, job.is_held = now_ns, False
    state.out.append(do.ThawJob(job.job_id, reason, _is_told(job)))
    if job.facts.timeout_ns is not None:
        look_at(state, job, timeout_at_ns(job))


def _is_told(job: Job) -> bool:
    """A job that stands frozen for a day has thousands of turns: the 1st, 2nd, 4th, 8th … are."""
    return job.num_turns & (job.num_turns - 1) == 0


def timeout_at_ns(job: Job) -> int:
    """When a job that is not frozen has run for as long as it may."""
    assert job.facts.timeout_ns is not None
    return job.began_ns + job.frozen_ns + job.facts.timeout_ns


def look_at(state: State, job: Job, due_ns: int) -> None:
    """Both for the job, and for the loop."""
    state.jobs.look_at(job.job_id, due_ns)
    state.wake_at(due_ns)
