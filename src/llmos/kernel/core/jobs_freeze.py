"""Freezing: who only computes stands still while somebody more urgent is served, but never long.

A job freezes when requests of a higher class than its own have been open for `freeze_after_ns`, and
thaws when there have been none for `thaw_after_ns`. Whatever is open, one that was frozen for
`freeze_max_ns` then runs for `freeze_slice_ns`: that is its lowest share.
"""

from __future__ import annotations

from llmos.kernel.core.jobs import Job, JobPhase
from llmos.kernel.core.jobs_leave import freeze, look_at, thaw
from llmos.kernel.core.limits import NS
from llmos.kernel.core.state import State


def balance(state: State, now_ns: int) -> None:
    """Every job that computes, in every step: there are few."""
    for job in state.jobs.active.values():
        if job.facts.compute and not job.is_held:
            _note_pressure(state, job, now_ns)
            if job.phase is JobPhase.FROZEN:
                _may_thaw(state, job, now_ns)
            if job.phase is JobPhase.RUNNING:
                _may_freeze(state, job, now_ns)


def _note_pressure(state: State, job: Job, now_ns: int) -> None:
    pressed = state.jobs.is_pressed(job)
    if pressed and job.pressed_ns is None:
        job.pressed_ns = now_ns
    elif not pressed and job.pressed_ns is not None:
        job.pressed_ns, job.relieved_ns, job.num_turns = None, now_ns, 0


def _may_freeze(state: State, job: Job, now_ns: int) -> None:
    limits = state.limits.jobs
    if job.pressed_ns is None or state.draining:
        return
    due_ns = max(job.pressed_ns + limits.freeze_after_ns, job.thawed_ns + limits.freeze_slice_ns)
    if due_ns <= now_ns:
        freeze(state, job, "requests of a higher class are served", now_ns)
        _look_again(state, job, now_ns + limits.freeze_max_ns)
    else:
        _look_again(state, job, due_ns)


def _may_thaw(state: State, job: Job, now_ns: int) -> None:
    limits = state.limits.jobs
    longest_ns = job.frozen_at_ns + limits.freeze_max_ns
    if longest_ns <= now_ns:
        job.num_turns += 1
        thaw(state, job, f"has its share after {limits.freeze_max_ns / NS:g} s", now_ns)
    elif job.pressed_ns is None:
        due_ns = job.relieved_ns + limits.thaw_after_ns
        if due_ns <= now_ns:
            thaw(state, job, "nothing more urgent is there", now_ns)
        else:
            _look_again(state, job, due_ns)


def _look_again(state: State, job: Job, due_ns: int) -> None:
    """Once per moment: this is asked in every step."""
    if job.looks_ns != due_ns:
        job.looks_ns = due_ns
        look_at(state, job, due_ns)
