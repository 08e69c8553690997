"""Room for models and for jobs, which share one ledger: which jobs yield for which need."""

from __future__ import annotations

from llmos.abi.principal import ServiceClass
from llmos.kernel.core import decisions as do
from llmos.kernel.core.jobs import AT_WORK, SPARE, Ending, Job, SpareState
from llmos.kernel.core.jobs_leave import send_away
from llmos.kernel.core.state import State


def plan_yields(state: State, missing_bytes: int, above: int) -> list[Job] | None:
    """Checkpointable jobs of lower classes than `above` that hold so many bytes; None: not enough.

    The lowest class goes first, and in it who has run least since its start: the least is undone.
    """
    found: list[Job] = []
    for job in sorted(_yielding(state, above), key=lambda job: (job.service_class, -job.began_ns)):
        if missing_bytes <= 0:
            break
        found.append(job)
        missing_bytes -= job.facts.memory_bytes
    if missing_bytes > 0:
        return None
    for job in sorted(found, key=lambda job: job.facts.memory_bytes):
        if missing_bytes + job.facts.memory_bytes <= 0:  # a bigger one has made it unnecessary
            found.remove(job)
            missing_bytes += job.facts.memory_bytes
    return found


def _yielding(state: State, above: int) -> list[Job]:
    return [
        job
        for job in state.jobs.active.values()
        if job.phase in AT_WORK
        and job.facts.checkpoints
        and job.reserved
        and job.ending is Ending.NONE
        and job.service_class < above
    ]


def make_yield(state: State, jobs: list[Job], what: str, now_ns: int) -> None:
    """Frozen ones too: they are thawed to make their checkpoint."""
    for job in jobs:
        send_away(state, job, Ending.ROOM, f"makes room for {what}", now_ns)


def class_of_need(state: State, model_id: str) -> int:
    """How urgent a model is: as who waits for it; what an operator wants goes before batch work."""
    highest = state.backlogs[model_id].highest() if model_id in state.backlogs else -1
    if model_id in state.wanted or model_id in state.pinned:
        return max(highest, int(ServiceClass.DEFAULT))
    return highest


def give_up_spare(state: State, reason: str) -> None:
    """A warm worker is a convenience: the first to go. Its bytes are free when it is gone."""
    if state.jobs.spare is SpareState.KEPT:
        state.jobs.spare = SpareState.LEAVING
        state.out.append(do.StopSpare(reason))


def leaving_bytes(state: State) -> int:
    """What jobs on their way out will give back."""
    spare = state.limits.jobs.spare_bytes if state.jobs.spare is SpareState.LEAVING else 0
    return state.jobs.leaving_bytes() + spare


def release_spare(state: State, due_ns: int) -> None:
    """Out of the ledger; the next one is due then."""
    state.ledger.release(SPARE)
    state.jobs.spare = SpareState.NONE
    state.jobs.spare_due_ns = due_ns
    tell_lacking(state)


def tell_lacking(state: State) -> None:
    """Bytes came free: the models that wait for some are looked at again."""
    state.dirty.update((model_id, None) for model_id in state.lacking)
    state.jobs.is_dirty = True
