"""What happens to a claimed job, until what became of it is on disk."""

from __future__ import annotations

import heapq

import msgspec

from llmos.abi.jobs import JobState
from llmos.errors import Cancelled, DeadlineExceeded, DiskFull, ErrorInfo, ProgramFailed, WorkerLost
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.jobs import AT_WORK, COMES_BACK, Ending, Job, JobPhase, Outcome, SpareState
from llmos.kernel.core.jobs_leave import freeze, kill, look_at, send_away, thaw, timeout_at_ns
from llmos.kernel.core.jobs_queue import charge, forget, free, leave_queue, put_back
from llmos.kernel.core.jobs_room import release_spare
from llmos.kernel.core.limits import NS
from llmos.kernel.core.state import State


def claimed(state: State, event: ev.JobClaimed, now_ns: int) -> None:
    """Into the queue. A second claim of one that is still here is a bug of the caller."""
    facts = event.job
    assert facts.job_id not in state.jobs.jobs, "claimed twice"
    job = Job(facts, facts.waiting, queued_ns=now_ns, reason="queued")
    state.jobs.jobs[job.job_id] = job
    state.jobs.queue(job).join(job.waiting)
    put_back(state, job)
    if facts.expires_ns is not None:
        look_at(state, job, facts.expires_ns)
    if state.jobs.spare_due_ns is None and not facts.is_call:
        state.jobs.spare_due_ns = now_ns


def dropped(state: State, event: ev.JobDropped, now_ns: int) -> None:
    """Only one that queues can be taken away like this; for the others the store has said no."""
    job = state.jobs.jobs.get(event.job_id)
    if job is not None and job.phase is JobPhase.QUEUED:
        leave_queue(state, job)
        forget(state, job)


def begun(state: State, event: ev.JobBegun, now_ns: int) -> None:
    """At work. What was wished meanwhile happens now."""
    job = state.jobs.jobs.get(event.job_id)
    if job is None or job.phase is not JobPhase.STARTING:
        return
    job.move(JobPhase.RUNNING, job.reason)
    job.began_ns = job.charged_ns = job.thawed_ns = now_ns
    if job.facts.timeout_ns is not None:
        look_at(state, job, timeout_at_ns(job))
    if job.ending is not Ending.NONE:
        ending, reason, job.ending = job.ending, job.ending_reason, Ending.NONE
        _ask(state, job, ending, reason, now_ns)
    state.jobs.is_dirty = True


def not_begun(state: State, event: ev.JobNotBegun, now_ns: int) -> None:
    """It ended, was suspended, or the disk refused: it is not ours any more."""
    job = state.jobs.jobs.get(event.job_id)
    if job is not None and job.phase in (JobPhase.STARTING, JobPhase.SETTLING):
        forget(state, job)


def waits(state: State, event: ev.JobWaits, now_ns: int) -> None:
    """Its slot is another's while it only waits for calls; when they are answered it goes on."""
    job = state.jobs.active.get(event.job_id)
    if job is None or job.is_idle == event.is_idle or job.phase is JobPhase.STARTING:
        return
    charge(state, job, now_ns)
    job.is_idle = event.is_idle
    if job.phase is JobPhase.RUNNING and event.is_idle:
        job.move(JobPhase.WAITING, "waits for its calls")
    elif job.phase is JobPhase.WAITING and not event.is_idle:
        job.move(JobPhase.RUNNING, "its calls are answered")
    state.jobs.is_dirty = True


def too_big(state: State, event: ev.JobTooBig, now_ns: int) -> None:
    """Killed at once: whatever else needs the memory must not suffer for it."""
    job = state.jobs.active.get(event.job_id)
    if job is None or job.phase is JobPhase.STARTING:
        return
    mib, may = event.rss_bytes / (1 << 20), job.facts.memory_bytes / (1 << 20)
    reason = f"its worker took {mib:.0f} MiB of {may:.0f} MiB"
    if job.wants_out(Ending.OVER_MEMORY, reason):
        kill(state, job, reason)


def cancelled(state: State, event: ev.JobCancelled, now_ns: int) -> None:
    """It may put away what it has done, and is then ended."""
    job = state.jobs.jobs.get(event.job_id)
    if job is not None and job.phase not in (JobPhase.QUEUED, JobPhase.SETTLING):
        send_away(state, job, Ending.CANCELLED, event.reason, now_ns)


def suspended(state: State, event: ev.JobSuspended, now_ns: int) -> None:
    """By checkpoint where there are any, frozen where there are none."""
    job = state.jobs.jobs.get(event.job_id)
    if job is None or job.phase is JobPhase.SETTLING:
        return
    if job.phase is JobPhase.QUEUED:
        dropped(state, ev.JobDropped(event.job_id), now_ns)
    else:
        _ask(state, job, Ending.SUSPENDED, event.reason, now_ns)


def _ask(state: State, job: Job, ending: Ending, reason: str, now_ns: int) -> None:
    """As `send_away`, but one without checkpoints is held where it is when it is suspended."""
    can_leave = job.facts.checkpoints or job.facts.is_call or job.phase not in AT_WORK
    if ending is not Ending.SUSPENDED or can_leave:
        send_away(state, job, ending, reason, now_ns)
    elif job.phase in AT_WORK:
        charge(state, job, now_ns)
        if job.phase is not JobPhase.FROZEN:
            freeze(state, job, reason, now_ns)
        job.is_held, job.reason = True, reason
        state.jobs.is_dirty = True


def resumed(state: State, event: ev.JobResumed, now_ns: int) -> None:
    """One that was held goes on; one that gave way comes back by way of the store."""
    job = state.jobs.active.get(event.job_id)
    if job is None:
        return
    if job.phase is JobPhase.STARTING and job.ending is Ending.SUSPENDED:
        job.ending = Ending.NONE
    elif job.is_held:
        thaw(state, job, "resumed", now_ns)
        job.charged_ns = now_ns
        job.pressed_ns = None


def reniced(state: State, event: ev.JobReniced, now_ns: int) -> None:
    """A queued one moves at once."""
    job = state.jobs.jobs.get(event.job_id)
    if job is None:
        return
    queued = job.phase is JobPhase.QUEUED
    if queued:
        leave_queue(state, job)
    old, queue = job.waiting, state.jobs.queue(job)
    queue.leave(old)
    job.waiting = msgspec.structs.replace(
        old,
        nice=old.nice if event.nice is None else event.nice,
        service_class=old.service_class if event.service_class is None else event.service_class,
    )
    queue.join(job.waiting)
    if queued:
        put_back(state, job)
    state.jobs.is_dirty = True


def over(state: State, event: ev.JobOver, now_ns: int) -> None:
    """An attempt has ended: free what it held, and decide what becomes of the job."""
    job = state.jobs.jobs.get(event.job_id)
    if job is None or job.phase in (JobPhase.QUEUED, JobPhase.SETTLING):
        return
    charge(state, job, now_ns)
    free(state, job)
    verdict = _verdict(state, job, event)
    job.move(JobPhase.SETTLING, verdict.reason)
    state.out.append(verdict)


def _verdict(state: State, job: Job, event: ev.JobOver) -> do.FinishJob | do.RequeueJob:
    """What was asked of it counts first, then how it went."""
    job_id, outcome, ending = job.job_id, event.outcome, job.ending
    if ending is Ending.CANCELLED:
        error = Cancelled(job.ending_reason).to_info()
        return do.FinishJob(job_id, JobState.CANCELLED, job.ending_reason, error)
    if ending in _LATE and not (ending is Ending.OVER_MEMORY and outcome is Outcome.RETURNED):
        error = _LATE[ending](job.ending_reason).to_info()
        return do.FinishJob(job_id, JobState.FAILED, job.ending_reason, error)
    if outcome is Outcome.RETURNED:
        return do.FinishJob(job_id, JobState.SUCCEEDED, "it returned")
    if ending in COMES_BACK and (outcome is Outcome.GAVE_WAY or job.is_killed):
        how = "gave way" if outcome is Outcome.GAVE_WAY else "did not give way in time"
        return do.RequeueJob(job_id, 0, f"{how}: {job.ending_reason}")
    if outcome is Outcome.NOT_STARTED:
        delay_ns = state.limits.jobs.min_backoff_ns
        why = event.error.message if event.error else "its worker did not start"
        return do.RequeueJob(job_id, delay_ns, _again(why, delay_ns))
    if outcome is Outcome.DIED:
        return _died(state, job, event.error or WorkerLost("its worker died").to_info())
    if outcome is Outcome.GAVE_WAY:
        unasked = ProgramFailed("the program gave way without being asked")
        unasked.retryable = True
        return _failed(state, job, unasked.to_info())
    return _failed(state, job, event.error or ProgramFailed("it failed").to_info())


_LATE = {
    Ending.OVER_MEMORY: ProgramFailed,
    Ending.TIMED_OUT: ProgramFailed,
    Ending.EXPIRED: DeadlineExceeded,
}


def _died(state: State, job: Job, error: ErrorInfo) -> do.FinishJob | do.RequeueJob:
    limits, num = state.limits.jobs, job.facts.num_deaths + 1
    if num >= limits.max_deaths:
        reason = f"its worker died {num} times, the last time: {error.message}"
        return do.FinishJob(job.job_id, JobState.DEAD, reason, error)
    delay_ns = limits.backoff_ns(num - 1)
    reason = f"its worker died ({num} of {limits.max_deaths}): {error.message}"
    return do.RequeueJob(job.job_id, delay_ns, _again(reason, delay_ns), True, error)


DISK_FULL_NS = 10 * NS
"""A full disk is not free again at once."""


def _failed(state: State, job: Job, error: ErrorInfo) -> do.FinishJob | do.RequeueJob:
    num = job.facts.num_failures + 1
    if not error.retryable or num >= job.facts.max_attempts:
        return do.FinishJob(job.job_id, JobState.FAILED, f"{error.code}: {error.message}", error)
    delay_ns = state.limits.jobs.backoff_ns(num - 1)
    if error.code == DiskFull.code:
        delay_ns = max(delay_ns, DISK_FULL_NS)
    if error.retry_after_s is not None:
        delay_ns = max(
            delay_ns, min(int(error.retry_after_s * NS), state.limits.jobs.max_backoff_ns)
        )
    reason = f"failed ({num} of {job.facts.max_attempts}): {error.message}"
    return do.RequeueJob(job.job_id, delay_ns, _again(reason, delay_ns), False, error)


def _again(reason: str, delay_ns: int) -> str:
    return f"{reason}; again in {delay_ns / NS:g} s"


def settled(state: State, event: ev.JobSettled, now_ns: int) -> None:
    """It is the store's again, or nobody's."""
    job = state.jobs.jobs.get(event.job_id)
    if job is not None and job.phase is JobPhase.SETTLING:
        forget(state, job)


def spare_gone(state: State, event: ev.SpareGone, now_ns: int) -> None:
    """Its bytes are free. One that died unasked is not replaced at once."""
    if state.jobs.spare is not SpareState.NONE:
        delay_ns = state.limits.jobs.spare_delay_ns
        release_spare(state, now_ns + (delay_ns if event.error is None else 10 * delay_ns))


def draining(state: State, now_ns: int) -> None:
    """Nothing starts any more; who can come back leaves now, the others have until `closing`."""
    for job in list(state.jobs.active.values()):
        if job.facts.checkpoints:
            send_away(state, job, Ending.DRAINED, "the server is stopping", now_ns)
        elif job.is_held:
            job.wants_out(Ending.DRAINED, "the server is stopping")
            kill(state, job, "the server is stopping")
        else:
            thaw(state, job, "the server is stopping", now_ns)


def closing(state: State) -> None:
    """What still has a worker loses it, and comes back with the next server."""
    for job in [*state.jobs.active.values(), *state.jobs.active_calls.values()]:
        job.wants_out(Ending.DRAINED, "the server is stopping")
        kill(state, job, "the server is stopping")


def look(state: State, now_ns: int) -> None:
    """Expiry, time-outs and graces that are over; then a spare may be due, or room be there."""
    board = state.jobs
    board.is_dirty = True
    while board.due and board.due[0][0] <= now_ns:
        job = board.jobs.get(heapq.heappop(board.due)[1])
        if job is not None:
            _look(state, job, now_ns)
    if board.due:
        state.wake_at(board.due[0][0])


def _look(state: State, job: Job, now_ns: int) -> None:
    facts = job.facts
    if facts.expires_ns is not None and facts.expires_ns <= now_ns:
        _expire(state, job, now_ns)
    if job.kill_ns is not None and job.kill_ns <= now_ns and job.phase is not JobPhase.SETTLING:
        kill(state, job, f"{job.reason}: its grace is over")
    runs = job.phase in (JobPhase.RUNNING, JobPhase.WAITING)
    if facts.timeout_ns is not None and runs and timeout_at_ns(job) <= now_ns:
        reason = f"it ran for longer than {facts.timeout_ns / NS:g} s"
        send_away(state, job, Ending.TIMED_OUT, reason, now_ns)


def _expire(state: State, job: Job, now_ns: int) -> None:
    reason = "it was not done before it expired"
    if job.phase is JobPhase.QUEUED:
        leave_queue(state, job)
        job.move(JobPhase.SETTLING, reason)
        state.out.append(do.ExpireJob(job.job_id, reason, DeadlineExceeded(reason).to_info()))
    elif job.phase is not JobPhase.SETTLING:
        send_away(state, job, Ending.EXPIRED, reason, now_ns)
