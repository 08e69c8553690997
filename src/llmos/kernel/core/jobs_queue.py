"""Which job starts next, and for whom it gives way. The order itself is the policy's."""

from __future__ import annotations

from llmos.kernel.core import decisions as do
from llmos.kernel.core.jobs import AT_WORK, SPARE, Ending, Job, JobPhase, SpareState
from llmos.kernel.core.jobs_leave import send_away
from llmos.kernel.core.jobs_room import release_spare, tell_lacking
from llmos.kernel.core.limits import NS
from llmos.kernel.core.makeroom import Need, leaving, make_room
from llmos.kernel.core.replica import HOST
from llmos.kernel.core.state import State

START_TOKENS = 64
"""What a start counts as, in a policy's tokens; so that shares hold among jobs that just began."""

TOKENS_PER_S = 100
"""What a second with a slot counts as."""


def put_back(state: State, job: Job) -> None:
    """Into its queue."""
    state.jobs.queue(job).push(job.waiting)
    state.jobs.is_dirty = True
    state.jobs.blocked_bytes = None


def leave_queue(state: State, job: Job) -> None:
    """Out of it, or from beside it."""
    state.jobs.queue(job).remove(job.job_id)
    state.jobs.crowded.pop(job.job_id, None)
    state.jobs.blocked_bytes = None
    state.jobs.is_dirty = True


def forget(state: State, job: Job) -> None:
    """The one place where a job leaves the core."""
    del state.jobs.jobs[job.job_id]
    state.jobs.queue(job).leave(job.waiting)
    free(state, job)


def free(state: State, job: Job) -> None:
    """Its slot and its bytes."""
    state.jobs.active.pop(job.job_id, None)
    state.jobs.active_calls.pop(job.job_id, None)
    if job.reserved:
        state.release(job.job_id)
        job.reserved = False
    tell_lacking(state)


def charge(state: State, job: Job, now_ns: int) -> None:
    """Tell the policy how long it has had a slot since it was last told."""
    if job.has_slot and job.phase is not JobPhase.STARTING:
        seconds = (now_ns - job.charged_ns) / NS
        state.jobs.queue(job).charge(job.waiting, seconds * TOKENS_PER_S)
    job.charged_ns = now_ns


def schedule(state: State, now_ns: int) -> None:
    """Start what may start. Cheap when nothing has changed: it is asked in every step."""
    board = state.jobs
    is_as_before = board.blocked_bytes in (None, state.free_bytes(HOST))
    if not board.is_dirty and is_as_before and not board.crowded:
        return
    board.is_dirty = False
    if state.draining:
        return
    _start_calls(state, now_ns)
    _unpark(state)
    if len(board.programs):
        for job in board.active.values():
            charge(state, job, now_ns)
    while len(board.programs) and _start_next(state, now_ns):
        pass
    _keep_spare(state, now_ns)


def _start_calls(state: State, now_ns: int) -> None:
    board, limits = state.jobs, state.limits.jobs
    while len(board.calls) and len(board.active_calls) < limits.max_running_calls:
        job = board.jobs[board.calls.pop().request_id]
        board.active_calls[job.job_id] = job
        _start(state, job, f"call {len(board.active_calls)} of {limits.max_running_calls}")


def _start_next(state: State, now_ns: int) -> bool:
    """The head of the queue starts, if there is a slot and room; else both are made, if may be."""
    board, limits = state.jobs, state.limits.jobs
    used = board.num_slots_used()
    job = board.jobs[board.programs.peek().request_id]
    if used >= limits.max_running:
        _free_slot(state, job, used, now_ns)
        return False
    if _is_crowded_out(state, job):
        board.programs.pop()
        board.crowded[job.job_id] = None
        job.reason = "what is kept loaded leaves no room for it"
        return True
    if not _has_room(state, job):
        _make_room(state, job, now_ns)
        if not _has_room(state, job):
            board.blocked_bytes = state.free_bytes(HOST)
            return False
    board.blocked_bytes = None
    board.programs.pop()
    board.active[job.job_id] = job
    takes_spare = _takes_spare(state, job)
    if takes_spare:
        release_spare(state, now_ns + limits.spare_delay_ns)
    state.reserve(job.job_id, {HOST: job.facts.memory_bytes})
    job.reserved = True
    _start(state, job, f"slot {used + 1} of {limits.max_running}", takes_spare)
    return True


def _start(state: State, job: Job, where: str, takes_spare: bool = False) -> None:
    job.move(JobPhase.STARTING, where)
    state.jobs.queue(job).charge(job.waiting, START_TOKENS)
    state.out.append(do.StartJob(job.job_id, job.reason, takes_spare))


def _free_slot(state: State, head: Job, used: int, now_ns: int) -> None:
    """A checkpointable job of a lower class yields its slot, unless one is leaving already."""
    board = state.jobs
    leaving = sum(job.has_slot and job.phase not in AT_WORK for job in board.active.values())
    leaving -= sum(job.phase is JobPhase.STARTING for job in board.active.values())
    if used - leaving < state.limits.jobs.max_running:
        return
    victims = [
        job
        for job in board.active.values()
        if job.has_slot
        and job.phase in AT_WORK
        and job.facts.checkpoints
        and job.service_class < head.service_class
        and board.programs.yields(job.waiting, 0) is not None
    ]
    if victims:
        victim = min(victims, key=lambda job: (job.service_class, -job.began_ns))
        name = head.service_class.name.lower()
        send_away(state, victim, Ending.ROOM, f"a job of class {name} waits", now_ns)


def _is_crowded_out(state: State, job: Job) -> bool:
    pinned_bytes = sum(state.needs(state.models[m])[HOST] for m in state.pinned)
    return job.facts.memory_bytes > state.ledger.budget_bytes - pinned_bytes


def _unpark(state: State) -> None:
    for job_id in list(state.jobs.crowded):
        job = state.jobs.jobs[job_id]
        if not _is_crowded_out(state, job):
            del state.jobs.crowded[job_id]
            state.jobs.programs.push(job.waiting)


def _free_bytes(state: State) -> int:
    """What models wait for is not a job's to take. A warm spare's bytes are whoever needs them."""
    owed = sum(state.needs(state.models[model_id])[HOST] for model_id in state.lacking)
    return state.free_bytes(HOST) - owed


def _takes_spare(state: State, job: Job) -> bool:
    """The warm worker becomes the job's, and with it what is held for it."""
    return state.jobs.spare is SpareState.KEPT and job.facts.may_use_spare


def _has_room(state: State, job: Job) -> bool:
    free_bytes = _free_bytes(state)
    if _takes_spare(state, job):
        free_bytes += state.limits.jobs.spare_bytes
    return job.facts.memory_bytes <= free_bytes


def _make_room(state: State, job: Job, now_ns: int) -> None:
    """Models nobody has used for a while go, and jobs of a lower class that can come back."""
    need_bytes = job.facts.memory_bytes
    missing = need_bytes - _free_bytes(state) - leaving(state)[HOST]
    what, idle_ns = f"job {job.job_id}", state.limits.jobs.evict_idle_ns
    need = Need(what, int(job.service_class), idle_ns=idle_ns)
    job.reason = f"waits for {need_bytes / (1 << 20):.0f} MiB"
    if missing > 0 and not make_room(state, {HOST: missing}, need, now_ns):
        state.wake_at(now_ns + NS)


def _keep_spare(state: State, now_ns: int) -> None:
    """One warm worker while there is room for it, some time after the last one was taken."""
    board, limits = state.jobs, state.limits.jobs
    if not limits.spare_bytes or board.spare is not SpareState.NONE or state.lacking:
        return
    if board.spare_due_ns is None:
        return  # no program has come yet
    if board.spare_due_ns > now_ns:
        state.wake_at(board.spare_due_ns)
    elif _free_bytes(state) >= limits.spare_bytes and board.blocked_bytes is None:
        state.reserve(SPARE, {HOST: limits.spare_bytes})
        board.spare = SpareState.KEPT
        state.out.append(do.StartSpare())
