"""Who works on what: claiming, giving back, starting, and taking over from dead kernels."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, bindparam, delete, func, select, text, update

from llmos.abi.jobs import Attempt, JobRecord, JobState
from llmos.storage.jobs.reads import CHUNK
from llmos.storage.jobs.rows import READY, WAITING, from_row
from llmos.storage.jobs.turns import first_ready
from llmos.storage.jobs.tx import Tx
from llmos.storage.tables import job_counts, jobs, leaders

MAX_CLAIM = 1000
LONGEST_WAIT_NS = 600_000_000_000
"""No back-off is so long by default; one that is, by the clock, began before it was set back."""

_MIN_PROMOTED = 1000

_DUE = (
    select(jobs.c.job_id)
    .where(jobs.c.queue == WAITING, jobs.c.due_ns <= bindparam("now_ns"))
    .order_by(jobs.c.due_ns)
    .limit(bindparam("num"))
    .with_for_update(skip_locked=True)
)
_TAKE = (
    update(jobs)
    .where(jobs.c.job_id.in_(bindparam("ids", expanding=True)))
    .values(holder_epoch=bindparam("holder"), queue=None)
    .returning(*jobs.c)
)
_LEAD = text(
    "INSERT INTO leaders (slot, epoch) VALUES (1, :epoch) "
    "ON CONFLICT (slot) DO UPDATE SET epoch = excluded.epoch"
)
_BEGIN = (
    update(jobs)
    .where(
        jobs.c.job_id == bindparam("id"),
        jobs.c.state == JobState.PENDING.value,
        jobs.c.holder_epoch == bindparam("holder"),
    )
    .values(
        state=JobState.RUNNING.value,
        attempt=jobs.c.attempt + 1,
        num_starts=jobs.c.num_starts + 1,
        epoch=bindparam("holder"),
        due_ns=0,
        reason="",
        started_ns=func.coalesce(jobs.c.started_ns, bindparam("now_ns")),
    )
    .returning(jobs.c.num_starts)
)


def claim(tx: Tx, limit: int, now_ns: int) -> list[JobRecord]:
    """As `JobStore.claim`. What has become due joins the queue first, so that neither those that
    wait nor those that do not are ever walked."""
    if not may_lead(tx):
        return []
    limit = min(max(limit, 0), MAX_CLAIM)
    due = list(
        tx.connection.execute(
            _DUE, {"now_ns": now_ns, "num": max(4 * limit, _MIN_PROMOTED)}
        ).scalars()
    )
    if due:
        tx.connection.execute(update(jobs).where(jobs.c.job_id.in_(due)).values(queue=READY))
    ids = first_ready(tx.connection, limit)
    if not ids:
        return []
    taken = {
        row.job_id: from_row(row)
        for row in tx.connection.execute(_TAKE, {"ids": ids, "holder": tx.epoch})
    }
    return [taken[job_id] for job_id in ids]


def release(tx: Tx, job_ids: Sequence[str]) -> None:
    """As `JobStore.release`."""
    if not job_ids:
        return
    mine = and_(jobs.c.state == JobState.PENDING.value, jobs.c.holder_epoch == tx.epoch)
    done = tx.connection.execute(
        update(jobs)
        .where(jobs.c.job_id.in_(list(job_ids)), mine)
        .values(holder_epoch=None, queue=READY)
    )
    tx.wakes = done.rowcount > 0


def begin(tx: Tx, job_id: str, now_ns: int) -> Attempt | None:
    """As `JobStore.begin`."""
    number = tx.connection.execute(
        _BEGIN, {"id": job_id, "holder": tx.epoch, "now_ns": now_ns}
    ).scalar()
    if number is None:
        return None
    tx.moved(JobState.PENDING, JobState.RUNNING)
    return Attempt(job_id, int(number), tx.epoch)


def may_lead(tx: Tx) -> bool:
    """False on a shared database whose lead another kernel has taken."""
    if not tx.shared:
        return True
    leader = select(leaders.c.epoch).with_for_update(read=True)
    return tx.connection.execute(leader).scalar() == tx.epoch


def take_lead(tx: Tx) -> int:
    """Write who leads, once claims of the old leader that are on their way are through, and take
    over what it held. The number of jobs that were running."""
    tx.connection.execute(_LEAD, {"epoch": tx.epoch})
    return recover(tx)


def end_long_waits(tx: Tx, now_ns: int) -> None:
    """Jobs that were started before and are to be tried again at a time that is out of reach. What
    was never started waits for a time that somebody named."""
    if not may_lead(tx):
        return
    late = jobs.c.due_ns > now_ns + LONGEST_WAIT_NS
    done = tx.connection.execute(
        update(jobs)
        .where(jobs.c.queue == WAITING, late, jobs.c.attempt > 0)
        .values(queue=READY, due_ns=0)
    )
    tx.wakes = done.rowcount > 0


def recover(tx: Tx) -> int:
    """As `JobStore.recover`. Costs what dead kernels held, not what there is."""
    if not may_lead(tx):
        return 0
    # two ranges of an index: as one inequality it would be a walk through all jobs
    held = [
        row
        for others in (jobs.c.holder_epoch < tx.epoch, jobs.c.holder_epoch > tx.epoch)
        for row in tx.connection.execute(
            select(jobs.c.job_id, jobs.c.state).where(others).with_for_update()
        )
    ]

    def free(was: JobState, **values: object) -> int:
        ids = [row.job_id for row in held if row.state == was.value]
        for start in range(0, len(ids), CHUNK):
            mine = jobs.c.job_id.in_(ids[start : start + CHUNK])
            change = update(jobs).where(mine).values(holder_epoch=None, **values)
            tx.connection.execute(change)
        return len(ids)

    free(JobState.SUSPENDED)
    free(JobState.PENDING, queue=READY)
    num = free(
        JobState.RUNNING,
        state=JobState.PENDING.value,
        queue=READY,
        due_ns=0,
        reason="the server that ran it has ended",
    )
    tx.moved(JobState.RUNNING, JobState.PENDING, num)
    _merge_counts(tx)
    tx.wakes = True
    return num


def _merge_counts(tx: Tx) -> None:
    """Counts of dead server runs become this one's."""
    others = tx.connection.execute(
        delete(job_counts)
        .where(job_counts.c.epoch != tx.epoch)
        .returning(job_counts.c.state, job_counts.c.num_jobs)
    )
    for state, num in others:
        tx.moved(None, state, int(num))
