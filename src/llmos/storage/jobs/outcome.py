"""How attempts and jobs end, and what ends with them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from sqlalchemy import Row, bindparam, or_, select, update

from llmos.abi.jobs import ENDED, Attempt, Ended, JobRecord, JobState
from llmos.errors import ErrorInfo, InvalidRequest
from llmos.storage.jobs.reads import get_many
from llmos.storage.jobs.rows import LIVE, from_row, plain, to_json
from llmos.storage.jobs.tx import Tx, find_current
from llmos.storage.tables import job_needs, jobs

_NEEDING = select(job_needs.c.job_id).where(
    job_needs.c.need_id == bindparam("of_job"), job_needs.c.met.is_(False)
)
_MET = update(job_needs).where(job_needs.c.need_id == bindparam("of_job")).values(met=True)
_CHILDREN = (
    select(jobs)
    .where(jobs.c.parent_id == bindparam("of_job"), or_(*(jobs.c.state == each for each in LIVE)))
    .order_by(jobs.c.job_id)
    .with_for_update()
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ends, and when."""

    state: JobState
    reason: str
    now_ns: int
    outputs: dict[str, Any] | None = None
    error: ErrorInfo | None = None


@dataclass
class Cascade:
    """What one end brings about, in the order in which it does."""

    unblocked: list[JobRecord] = field(default_factory=list)
    touched: dict[str, JobRecord] = field(default_factory=dict)


def requeue(
    tx: Tx, attempt: Attempt, due_ns: int, reason: str, *, died: bool, error: ErrorInfo | None
) -> JobRecord | None:
    """As `JobStore.requeue`. A suspended job stays suspended, without its worker."""
    row = find_current(tx, attempt)
    if row is None:
        return None
    suspended = row.state == JobState.SUSPENDED
    changed = tx.change(
        row,
        state=JobState.SUSPENDED.value if suspended else JobState.PENDING.value,
        holder_epoch=None,
        due_ns=due_ns,
        reason=row.reason if suspended else reason,
        num_deaths=row.num_deaths + died,
        num_failures=row.num_failures + (error is not None and not died),
        error=to_json(error),
    )
    return from_row(changed)


def finish(tx: Tx, attempt: Attempt, end: Outcome) -> Ended | None:
    """As `JobStore.finish`, without the files. What was cancelled before does not succeed."""
    if end.state not in ENDED:
        raise InvalidRequest(f"a job does not end as {end.state.value}", param="state")
    row = find_current(tx, attempt)
    if row is None:
        return None
    state, reason = end.state, end.reason
    if state is JobState.SUCCEEDED and row.cancel_reason is not None:
        # whoever cancelled it was told so, while its kernel had decided already
        state, reason = JobState.CANCELLED, row.cancel_reason
    ended = tx.change(
        row,
        state=state.value,
        holder_epoch=None,
        reason=reason,
        num_deaths=row.num_deaths + (state is JobState.DEAD),  # of the last one
        ended_ns=end.now_ns,
        outputs=to_json(end.outputs),
        error=to_json(end.error),
    )
    cascade = Cascade()
    spread(tx, [ended], end.now_ns, cascade)
    # a child that needed its parent was unblocked, and then ended with it
    free = [each for each in cascade.unblocked if each.job_id not in cascade.touched]
    return Ended(from_row(ended), free, list(cascade.touched.values()))


def spread(tx: Tx, changed: list[Row[Any]], now_ns: int, cascade: Cascade) -> None:
    """Tell those who needed, or are children of, jobs that have just ended, and so on. Of one that
    was only marked to end, the children need not wait."""
    work = deque(changed)
    while work:
        row = work.popleft()
        if row.state == JobState.SUCCEEDED:
            _unblock(tx, row.job_id, cascade)
        elif JobState(row.state) in ENDED:
            why = f"{row.job_id}, which it needs, {_fate(row)}"
            work += _cancel_all(tx, _dependents(tx, row.job_id), why, now_ns, cascade)
        why = f"its parent {row.job_id} {_fate(row)}"
        work += _cancel_all(tx, _children(tx, row.job_id), why, now_ns, cascade)


def _fate(row: Row[Any]) -> str:
    words = {
        JobState.SUCCEEDED: "has ended",
        JobState.FAILED: "failed",
        JobState.CANCELLED: "was cancelled",
        JobState.DEAD: "is dead",
    }
    return words.get(JobState(row.state), "is being cancelled")


def _unblock(tx: Tx, job_id: str, cascade: Cascade) -> None:
    for row in _dependents(tx, job_id):
        left = max(row.num_unmet - 1, 0)
        free = left == 0 and row.state == JobState.BLOCKED
        state = JobState.PENDING.value if free else row.state
        changed = tx.change(row, num_unmet=left, state=state)
        if free:
            cascade.unblocked.append(from_row(changed))
    tx.connection.execute(_MET, {"of_job": job_id})


def _dependents(tx: Tx, job_id: str) -> list[Row[Any]]:
    """Live jobs that wait for it. Two steps: joined, they would be sought by their state."""
    ids = tx.connection.execute(_NEEDING, {"of_job": job_id}).scalars()
    found = get_many(tx.connection, sorted(ids), lock=True)
    return sorted((row for row in found if row.state in LIVE), key=attrgetter("job_id"))


def _children(tx: Tx, job_id: str) -> list[Row[Any]]:
    return list(tx.connection.execute(_CHILDREN, {"of_job": job_id}))


def _cancel_all(
    tx: Tx, rows: list[Row[Any]], reason: str, now_ns: int, cascade: Cascade
) -> list[Row[Any]]:
    """Cancel each that was not told before; as they are now."""
    return [cancel_one(tx, row, reason, now_ns, cascade) for row in rows if not _is_told(row)]


def _is_told(row: Row[Any]) -> bool:
    return _is_held(row) and row.cancel_reason is not None


def _is_held(row: Row[Any]) -> bool:
    """True while an attempt of it goes on: then its kernel must end it."""
    return row.state in (JobState.RUNNING, JobState.SUSPENDED) and row.holder_epoch is not None


def cancel_one(tx: Tx, row: Row[Any], reason: str, now_ns: int, cascade: Cascade) -> Row[Any]:
    """End a job that no attempt goes on of, or mark it for its kernel to end. The first reason
    given stays."""
    values: dict[str, Any] = {"cancel_reason": plain(reason)}
    if row.cancel_reason is not None:
        values["cancel_reason"] = row.cancel_reason
    if not _is_held(row):
        values |= {"state": JobState.CANCELLED.value, "holder_epoch": None}
        values |= {"reason": reason, "ended_ns": now_ns}
    changed = tx.change(row, **values)
    cascade.touched[row.job_id] = from_row(changed)
    return changed
