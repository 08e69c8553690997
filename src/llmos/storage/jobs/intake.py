"""Taking jobs in: all of a call or none, checked against what is there already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from llmos.abi.jobs import ENDED, Idempotency, JobRecord, JobState
from llmos.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from llmos.storage.jobs.keys import keep_key
from llmos.storage.jobs.reads import get_many
from llmos.storage.jobs.rows import from_row, plain, to_row
from llmos.storage.jobs.tx import Tx
from llmos.storage.tables import files, job_files, job_needs, jobs

_ADD = insert(jobs)


def add(
    tx: Tx, new: Sequence[JobRecord], idempotency: Idempotency | None = None
) -> list[JobRecord]:
    """As `JobStore.add`, inside the caller's transaction."""
    if not new:
        return []
    if idempotency is not None:
        ids = [job.job_id for job in new]
        owner = new[0].principal.principal_id
        then = keep_key(
            tx.connection,
            owner,
            idempotency,
            ids,
            now_ns=new[0].created_ns,
            epoch=tx.epoch,
        )
        if then is not None:
            return _jobs_of_then(tx, then)
    if tx.limits.max_tenant_jobs:
        _check_quota(tx, new)
    ordered = _in_order(new)
    states = _states_of_others(tx, new)
    placed = {job.job_id: _placed(job, states) for job in ordered}
    stored = [placed[job.job_id] for job in new]
    rows = [to_row(job, tx.epoch) for job in stored]
    read = _files_read(tx, new)
    try:
        tx.connection.execute(_ADD, rows)
    except IntegrityError as error:
        raise Conflict("a job of this id exists already", param="job_id") from error
    _add_needs(tx, new, states)
    if read:
        tx.connection.execute(insert(job_files), read)
    for job, row in zip(stored, rows, strict=True):
        tx.moved(None, job.state)
        tx.wakes = tx.wakes or row["queue"] is not None
    return [msgspec.structs.replace(job, epoch=tx.epoch) for job in stored]


def _check_quota(tx: Tx, new: Sequence[JobRecord]) -> None:
    """Raises QuotaExceeded. What has ended already costs nothing that a quota is for."""
    limit = tx.limits.max_tenant_jobs
    asked = Counter(job.principal.tenant_id for job in new if job.state not in ENDED)
    for tenant_id, num in asked.items():
        own = select(jobs.c.tenant_id).where(
            jobs.c.tenant_id == tenant_id, jobs.c.ended_ns.is_(None)
        )
        counted = select(func.count()).select_from(own.limit(limit + 1).subquery())
        if tx.connection.execute(counted).scalar_one() + num > limit:
            raise QuotaExceeded(
                f"a tenant has at most {limit} jobs that have not ended", retry_after_s=10.0
            )


def _jobs_of_then(tx: Tx, ids: list[str]) -> list[JobRecord]:
    found = {row.job_id: from_row(row) for row in get_many(tx.connection, ids)}
    if len(found) < len(ids):
        raise NotFound(
            "what was made with this Idempotency-Key has been removed", param="Idempotency-Key"
        )
    return [found[job_id] for job_id in ids]


def _in_order(new: Sequence[JobRecord]) -> list[JobRecord]:
    """Each after those of the same call that it needs; no older job knows a new one, so only
    these can go in a circle. Raises InvalidRequest, Conflict."""
    own = {job.job_id: job for job in new}
    if len(own) < len(new):
        raise Conflict("two jobs of one call have the same id", param="job_id")
    needs = {job.job_id: own.keys() & set(job.spec.needs) for job in new}
    needed_by: dict[str, list[str]] = {}
    for job_id, ids in needs.items():
        for need in ids:
            needed_by.setdefault(need, []).append(job_id)
    ready = [job_id for job_id, ids in needs.items() if not ids]
    ordered = []
    while ready:
        ordered.append(own[done := ready.pop()])
        for job_id in needed_by.get(done, ()):
            needs[job_id].discard(done)
            if not needs[job_id]:
                ready.append(job_id)
    if len(ordered) < len(new):
        raise InvalidRequest("jobs need each other in a circle", param="needs")
    return ordered


def _states_of_others(tx: Tx, new: Sequence[JobRecord]) -> dict[str, JobState]:
    """Of jobs in the store that the new ones name. Raises NotFound, Conflict."""
    own = {job.job_id for job in new}
    named = {name for job in new for name in _names(job)} - own
    rows = {row.job_id: row for row in get_many(tx.connection, sorted(named), lock=True)}
    for job in new:
        for name in _names(job):
            known = name in own or (
                name in rows and rows[name].tenant_id == job.principal.tenant_id
            )
            if not known:
                param = "parent_id" if name == job.spec.parent_id else "needs"
                raise NotFound(f"no job {name[:80]!r}", param=param)
        parent = rows.get(job.spec.parent_id or "")
        if parent is not None and JobState(parent.state) in ENDED and job.state not in ENDED:
            raise Conflict(f"its parent {parent.job_id} has ended", param="parent_id")
    return {job_id: JobState(row.state) for job_id, row in rows.items()}


def _names(job: JobRecord) -> Iterable[str]:
    yield from job.spec.needs
    if job.spec.parent_id is not None:
        yield job.spec.parent_id


def _placed(job: JobRecord, states: dict[str, JobState]) -> JobRecord:
    """The state it begins in: as it is if it has ended; cancelled if what it needs did not
    succeed; blocked; pending. `states` knows all it needs, and learns of it."""
    unmet = [n for n in dict.fromkeys(job.spec.needs) if states[n] is not JobState.SUCCEEDED]
    lost = next((need for need in unmet if states[need] in ENDED), None)
    state, reason, ended_ns = job.state, job.reason, None
    if state in ENDED:
        ended_ns = job.created_ns if job.ended_ns is None else job.ended_ns
    elif lost is not None:
        state, reason = JobState.CANCELLED, f"{lost}, which it needs, has not succeeded"
        ended_ns = job.created_ns
    else:
        state = JobState.BLOCKED if unmet else JobState.PENDING
    states[job.job_id] = state
    return msgspec.structs.replace(
        job,
        state=state,
        reason=plain(reason),
        ended_ns=ended_ns,
        due_ns=max(job.due_ns, job.spec.start_at_ns or 0),
        num_unmet=len(unmet),
    )


def _add_needs(tx: Tx, new: Sequence[JobRecord], states: dict[str, JobState]) -> None:
    rows = [
        {"job_id": job.job_id, "need_id": need, "met": states[need] is JobState.SUCCEEDED}
        for job in new
        for need in dict.fromkeys(job.spec.needs)
    ]
    if rows:
        tx.connection.execute(insert(job_needs), rows)


def _files_read(tx: Tx, new: Sequence[JobRecord]) -> list[dict[str, object]]:
    """Rows of what the jobs read, by its bytes: the files may be removed before the jobs end.
    Raises NotFound."""
    wanted = {file_id for job in new for file_id in job.spec.files.values()}
    if not wanted:
        return []
    found = {
        row.file_id: row
        for row in tx.connection.execute(select(files).where(files.c.file_id.in_(sorted(wanted))))
    }
    rows: list[dict[str, object]] = []
    for job in new:
        for name, file_id in job.spec.files.items():
            file = found.get(file_id)
            gone = file is not None and file.expires_ns is not None
            gone = gone and file is not None and file.expires_ns <= job.created_ns
            if file is None or gone or file.tenant_id != job.principal.tenant_id:
                raise NotFound(f"no file {file_id[:80]!r}", param=f"files.{name}"[:120])
            rows.append(
                {
                    "job_id": job.job_id,
                    "name": name,
                    "file_id": file_id,
                    "digest": file.digest,
                    "size_bytes": file.size_bytes,
                }
            )
    return rows
