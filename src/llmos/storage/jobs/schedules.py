"""Schedules: jobs that are submitted by the clock."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from llmos.abi.ids import new_id
from llmos.abi.jobs import JobRecord, JobState, Schedule
from llmos.errors import ErrorInfo, NotFound, QuotaExceeded, UserError
from llmos.storage.jobs.claims import may_lead
from llmos.storage.jobs.cron import next_ns
from llmos.storage.jobs.intake import add
from llmos.storage.jobs.rows import schedule_from_row, schedule_to_row
from llmos.storage.jobs.tx import Tx
from llmos.storage.tables import schedules

MAX_FIRED = 200
"""Most schedules fired in one transaction; the rest a moment later."""
MAX_LISTED = 10_000


def add_schedule(tx: Tx, schedule: Schedule) -> Schedule:
    """As `JobStore.add_schedule`; `next_ns` is computed from `created_ns`."""
    due = next_ns(schedule.cron, schedule.timezone, schedule.created_ns)
    tenant_id = schedule.principal.tenant_id
    mine = select(func.count()).where(schedules.c.tenant_id == tenant_id)
    if tx.connection.execute(mine).scalar_one() >= tx.limits.max_schedules:
        raise QuotaExceeded(
            f"the tenant has {tx.limits.max_schedules} schedules already", param="cron"
        )
    schedule = msgspec.structs.replace(schedule, next_ns=due)
    tx.connection.execute(insert(schedules).values(**schedule_to_row(schedule, tx.epoch)))
    tx.wakes = True
    return schedule


def list_schedules(connection: Connection, tenant_id: str | None) -> list[Schedule]:
    """As `JobStore.list_schedules`, oldest first."""
    query = select(schedules).order_by(schedules.c.schedule_id).limit(MAX_LISTED)
    if tenant_id is not None:
        query = query.where(schedules.c.tenant_id == tenant_id)
    return [schedule_from_row(row) for row in connection.execute(query)]


def remove_schedule(tx: Tx, schedule_id: str) -> Schedule:
    """As `JobStore.remove_schedule`."""
    which = schedules.c.schedule_id == schedule_id
    row = tx.connection.execute(delete(schedules).where(which).returning(*schedules.c)).first()
    if row is None:
        raise NotFound(f"no schedule {schedule_id[:80]!r}", param="schedule_id")
    return schedule_from_row(row)


def fire(tx: Tx, now_ns: int) -> list[JobRecord]:
    """As `JobStore.fire_schedules`. After a clock went back, what was fired is not fired again:
    its next time stands."""
    if not may_lead(tx):
        return []
    query = (
        select(schedules)
        .where(schedules.c.next_ns <= now_ns, schedules.c.paused.is_(False))
        .order_by(schedules.c.next_ns, schedules.c.schedule_id)
        .limit(MAX_FIRED)
        .with_for_update(skip_locked=True)
    )
    fired = []
    for row in tx.connection.execute(query).all():
        schedule = schedule_from_row(row)
        job = _submitted(tx, schedule, now_ns)
        tx.connection.execute(
            update(schedules)
            .where(schedules.c.schedule_id == schedule.schedule_id)
            .values(
                next_ns=next_ns(schedule.cron, schedule.timezone, now_ns), last_job_id=job.job_id
            )
        )
        fired.append(job)
    return fired


def _submitted(tx: Tx, schedule: Schedule, now_ns: int) -> JobRecord:
    """The schedule's job; if it cannot be taken in (a file is gone), one that says so."""
    job = JobRecord(
        job_id=new_id("job"),
        principal=schedule.principal,
        spec=schedule.spec,
        state=JobState.PENDING,
        created_ns=now_ns,
        epoch=tx.epoch,
        reason=f"schedule {schedule.schedule_id}",
    )
    try:
        (added,) = add(tx, [job])
    except (UserError, QuotaExceeded) as refused:
        (added,) = add(tx, [_failed(job, refused.to_info(), now_ns)])
    return added


def _failed(job: JobRecord, error: ErrorInfo, now_ns: int) -> JobRecord:
    spec = msgspec.structs.replace(job.spec, files={}, needs=[], parent_id=None)
    return msgspec.structs.replace(
        job,
        spec=spec,
        state=JobState.FAILED,
        reason=f"{job.reason}: {error.message}",
        ended_ns=now_ns,
        error=error,
    )
