"""Jobs as people see them: a line of `ps`, and the story of their decisions."""

from __future__ import annotations

from collections.abc import Sequence

from llmos.abi.jobs import ENDED, JobEvent, JobProgress, JobRecord, JobState
from llmos.abi.syscall import Decided, ProcessInfo, ProcessStory
from llmos.kernel.core.jobs import Job, JobPhase
from llmos.kernel.jobs.entry import Entry

PREFIXES = ("job_", "batch_", "resp_")
"""Three names of one thing."""


def job_id_of(process_id: str) -> str:
    """`batch_X` and `resp_X` are `job_X`."""
    _, _, rest = process_id.partition("_")
    return f"job_{rest}"


def is_job_id(process_id: str) -> bool:
    """By its prefix."""
    return process_id.startswith(PREFIXES)


def info_of(record: JobRecord, entry: Entry | None = None, job: Job | None = None) -> ProcessInfo:
    """`entry` and `job` are what this kernel knows beyond the store, if it holds the job."""
    state, reason = str(record.state), record.reason
    is_suspended = record.state is JobState.SUSPENDED
    if job is not None and record.state not in ENDED and not is_suspended:
        state, reason = str(job.phase), job.reason
        if job.phase is JobPhase.QUEUED:
            state, reason = str(JobState.PENDING), job.reason or record.reason
    progress = (entry.progress if entry else None) or record.progress
    spec = record.spec
    return ProcessInfo(
        process_id=record.job_id,
        kind="job",
        state=state,
        model=spec.program,
        tenant_id=record.principal.tenant_id,
        principal=record.principal.name,
        service_class=spec.service_class,
        nice=spec.nice,
        prompt_tokens=0,
        completion_tokens=0,
        created_ns=record.created_ns,
        started_ns=record.started_ns,
        ended_ns=record.ended_ns,
        reason=reason,
        eta_s=entry.eta_s() if entry else None,
        name=spec.name,
        parent_id=spec.parent_id,
        progress=_fraction(progress),
    )


def _fraction(progress: JobProgress | None) -> float | None:
    if progress is None or not progress.total:
        return None
    return min(1.0, max(0.0, progress.done / progress.total))


def story_of(info: ProcessInfo, record: JobRecord, events: Sequence[JobEvent]) -> ProcessStory:
    """`events` are its `state` events. What the record alone tells comes first and last."""
    decided = [Decided(record.created_ns, str(JobState.PENDING), "submitted")]
    decided += [
        Decided(event.at_ns, str(event.value.get("state", "")), str(event.value.get("reason", "")))
        for event in events
    ]
    last = decided[-1]
    if record.ended_ns is not None and last.state != record.state:
        decided.append(Decided(record.ended_ns, str(record.state), record.reason))
    return ProcessStory(info, decided)
