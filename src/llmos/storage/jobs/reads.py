"""Reading: one job, pages of jobs, counts. Every page costs what it holds, not what there is."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from llmos.abi.jobs import JobFilter, JobRecord, JobState
from llmos.errors import NotFound
from llmos.storage.jobs.rows import from_row
from llmos.storage.tables import job_counts, jobs, schedules

CHUNK = 500
"""Most ids in one statement."""
MAX_PAGE = 1000


def get_many(connection: Connection, ids: Sequence[str], *, lock: bool = False) -> list[Row[Any]]:
    """Rows of the jobs that exist; `lock`: until the transaction ends."""
    found: list[Row[Any]] = []
    for start in range(0, len(ids), CHUNK):
        query = select(jobs).where(jobs.c.job_id.in_(ids[start : start + CHUNK]))
        found += connection.execute(query.with_for_update() if lock else query)
    return found


def get(connection: Connection, job_id: str) -> JobRecord:
    """Raises NotFound."""
    row = connection.execute(select(jobs).where(jobs.c.job_id == job_id)).first()
    if row is None:
        raise NotFound(f"no job {job_id[:80]!r}", param="job_id")
    return from_row(row)


def page(connection: Connection, query: JobFilter) -> list[JobRecord]:
    """One bounded query per state and program asked for, each along an index, merged."""
    limit = min(max(query.limit, 0), MAX_PAGE)
    found = [connection.execute(one.limit(limit)).all() for one in _queries(query)]
    merged = heapq.merge(*found, key=attrgetter("job_id"), reverse=True)
    return [from_row(row) for row in itertools.islice(merged, limit)]


def _queries(query: JobFilter) -> Iterator[Select[Any]]:
    base = select(jobs).order_by(jobs.c.job_id.desc())
    if query.tenant_id is not None:
        base = base.where(jobs.c.tenant_id == query.tenant_id)
    if query.parent_id is not None:
        base = base.where(jobs.c.parent_id == query.parent_id)
    if query.after is not None:
        base = base.where(jobs.c.job_id < query.after)
    programs: list[str | None] = list(dict.fromkeys(query.programs)) or [None]
    states: list[JobState | None] = list(dict.fromkeys(query.states)) or [None]
    for program, state in itertools.product(programs, states):
        one = base if program is None else base.where(jobs.c.program == program)
        yield one if state is None else one.where(jobs.c.state == state.value)


def count(connection: Connection) -> dict[JobState, int]:
    """How many jobs are in each state; states without any are left out."""
    total = func.sum(job_counts.c.num_jobs)
    rows = connection.execute(select(job_counts.c.state, total).group_by(job_counts.c.state))
    return {JobState(state): int(num) for state, num in rows if num}


def next_due_ns(connection: Connection) -> int | None:
    """The earliest time at which a waiting job or a schedule is due."""
    times = [
        connection.execute(select(func.min(jobs.c.due_ns)).where(jobs.c.queue == 0)).scalar(),
        connection.execute(
            select(func.min(schedules.c.next_ns)).where(schedules.c.paused.is_(False))
        ).scalar(),
    ]
    return min((int(time) for time in times if time is not None), default=None)
