"""What jobs hold of the ledger that they share with models, and who may have it."""

from __future__ import annotations

from llmos.abi.principal import ServiceClass
from llmos.kernel.core import decisions as do
from llmos.kernel.core.jobs import AT_WORK, SPARE, Ending, Job, SpareState
from llmos.kernel.core.state import State


def yielding(state: State, above: int) -> list[Job]:
    """Jobs of lower classes than `above` that hold bytes and can make a checkpoint.

    Frozen ones too: they are thawed for it.
    """
    return [
        job
        for job in state.jobs.active.values()
        if job.phase in AT_WORK
        and job.facts.checkpoints
        and job.reserved
        and job.ending is Ending.NONE
        and job.service_class < above
    ]


def spare_is_kept(state: State) -> bool:
    """There is a warm worker, and it may go."""
    return state.jobs.spare is SpareState.KEPT


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
    state.release(SPARE)
    state.jobs.spare = SpareState.NONE
    state.jobs.spare_due_ns = due_ns
    tell_lacking(state)


def tell_lacking(state: State) -> None:
    """Bytes came free: the models that wait for some are looked at again."""
    state.dirty.update((model_id, None) for model_id in state.lacking)
    state.jobs.is_dirty = True
