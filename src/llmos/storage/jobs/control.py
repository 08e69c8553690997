"""What people do to jobs: cancel, suspend, resume, renice, retry, remove."""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, select

from llmos.abi.jobs import ENDED, JobRecord, JobState
from llmos.abi.principal import ServiceClass
from llmos.errors import Conflict
from llmos.storage.jobs.outcome import Cascade, cancel_one, spread
from llmos.storage.jobs.rows import from_row, rank_of, to_json
from llmos.storage.jobs.tx import Tx
from llmos.storage.tables import job_events, job_files, job_needs, job_results, jobs

PARTS = (job_needs, job_files, job_events, job_results)
"""Tables of what belongs to a job and goes with it."""


def cancel(tx: Tx, job_id: str, reason: str, now_ns: int) -> list[JobRecord]:
    """As `JobStore.cancel`: the job itself first, also when it had ended before."""
    row = tx.get(job_id)
    if JobState(row.state) in ENDED:
        return [from_row(row)]
    cascade = Cascade()
    spread(tx, [cancel_one(tx, row, reason, now_ns, cascade)], now_ns, cascade)
    return list(cascade.touched.values())


def suspend(tx: Tx, job_id: str, reason: str) -> JobRecord:
    """As `JobStore.suspend`. A job that was running keeps its attempt, frozen or not, until the
    attempt reports; a claim is given up."""
    row = tx.get(job_id)
    _refuse_ended(JobState(row.state), job_id)
    if row.state == JobState.SUSPENDED:
        return from_row(row)
    holder = row.holder_epoch if row.state == JobState.RUNNING else None
    return from_row(
        tx.change(row, state=JobState.SUSPENDED.value, holder_epoch=holder, reason=reason)
    )


def resume(tx: Tx, job_id: str, reason: str) -> JobRecord:
    """As `JobStore.resume`: running if its attempt still goes on, else back in the queue."""
    row = tx.get(job_id)
    if row.state != JobState.SUSPENDED:
        raise Conflict(f"{job_id} is {row.state}, not suspended", param="job_id")
    if row.holder_epoch is not None:
        state = JobState.RUNNING
    else:
        state = JobState.BLOCKED if row.num_unmet else JobState.PENDING
    return from_row(tx.change(row, state=state.value, reason=reason))


def renice(tx: Tx, job_id: str, nice: int | None, service_class: ServiceClass | None) -> JobRecord:
    """As `JobStore.renice`."""
    row = tx.get(job_id)
    _refuse_ended(JobState(row.state), job_id)
    spec = from_row(row).spec
    spec = msgspec.structs.replace(
        spec,
        nice=spec.nice if nice is None else nice,
        service_class=spec.service_class if service_class is None else service_class,
    )
    return from_row(tx.change(row, spec=to_json(spec), rank=rank_of(spec.service_class)))


def retry(tx: Tx, job_id: str, reason: str) -> JobRecord:
    """As `JobStore.retry`. Attempt numbers go on, so that an old attempt stays an old one."""
    row = tx.get(job_id)
    state = JobState(row.state)
    if state not in ENDED or state is JobState.SUCCEEDED:
        raise Conflict(f"{job_id} is {row.state}: there is nothing to retry", param="job_id")
    num_unmet = _num_unmet(tx, job_id)
    changed = tx.change(
        row,
        state=JobState.BLOCKED.value if num_unmet else JobState.PENDING.value,
        reason=reason,
        due_ns=0,
        attempt=0,
        num_deaths=0,
        num_failures=0,
        num_unmet=num_unmet,
        started_ns=None,
        ended_ns=None,
        cancel_reason=None,
        outputs=None,
        error=None,
    )
    return from_row(changed)


def _num_unmet(tx: Tx, job_id: str) -> int:
    """Needs that may still succeed. Raises Conflict if one cannot."""
    query = (
        select(job_needs.c.need_id, jobs.c.state)
        .outerjoin(jobs, jobs.c.job_id == job_needs.c.need_id)
        .where(job_needs.c.job_id == job_id, job_needs.c.met.is_(False))
    )
    unmet = tx.connection.execute(query).all()
    for need_id, state in unmet:
        if state is None or JobState(state) in ENDED:
            raise Conflict(f"{need_id}, which it needs, has not succeeded", param="needs")
    return len(unmet)


def remove(tx: Tx, job_id: str) -> JobRecord:
    """As `JobStore.remove`."""
    row = tx.get(job_id)
    if JobState(row.state) not in ENDED:
        raise Conflict(f"{job_id} is {row.state}: cancel it first", param="job_id")
    forget(tx, [job_id])
    tx.moved(row.state, None)
    return from_row(row)


def forget(tx: Tx, job_ids: list[str]) -> int:
    """Delete ended jobs and all that is kept of them; how many rows went."""
    num = 0
    for table in (*PARTS, jobs):
        num += tx.connection.execute(delete(table).where(table.c.job_id.in_(job_ids))).rowcount
    return num


def _refuse_ended(state: JobState, job_id: str) -> None:
    if state in ENDED:
        raise Conflict(f"{job_id} has ended: it is {state.value}", param="job_id")
