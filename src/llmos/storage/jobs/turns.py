"""Whose job is claimed next: the most urgent class first, then tenants in turn, then the oldest.

A tenant that submits a million jobs must not keep the others' out of a kernel's window, where the
policy would see them. Everything is sought in one index: what waits is never walked.
"""

from __future__ import annotations

import itertools

from sqlalchemy import Connection, bindparam, select, tuple_

from llmos.storage.jobs.rows import READY
from llmos.storage.tables import jobs

_NEXT_TENANT = (
    select(jobs.c.rank, jobs.c.tenant_id)
    .where(
        jobs.c.queue == READY,
        tuple_(jobs.c.rank, jobs.c.tenant_id) > tuple_(bindparam("rank"), bindparam("tenant_id")),
    )
    .order_by(jobs.c.rank, jobs.c.tenant_id)
    .limit(1)
)
_OLDEST = (
    select(jobs.c.job_id, jobs.c.created_ns)
    .where(
        jobs.c.queue == READY,
        jobs.c.rank == bindparam("of_rank"),
        jobs.c.tenant_id == bindparam("of_tenant"),
    )
    .order_by(jobs.c.created_ns, jobs.c.job_id)
    .limit(bindparam("num"))
    .with_for_update(skip_locked=True)
)


def first_ready(connection: Connection, limit: int) -> list[str]:
    """Ids of at most `limit` jobs that may be claimed now, in the order of their claim."""
    found: list[str] = []
    head = _next_tenant(connection, 0, "")
    while head is not None and len(found) < limit:
        found += _of_class(connection, *head, limit - len(found))
        head = _next_tenant(connection, head[0] + 1, "")
    return found


def _next_tenant(connection: Connection, rank: int, tenant_id: str) -> tuple[int, str] | None:
    """The class and the tenant that follow; no tenant's id is empty."""
    values = {"rank": rank, "tenant_id": tenant_id}
    row = connection.execute(_NEXT_TENANT, values).first()
    return None if row is None else (int(row.rank), str(row.tenant_id))


def _of_class(connection: Connection, rank: int, tenant_id: str, limit: int) -> list[str]:
    """One each of `limit` tenants, then two, and so on."""
    tenants = [tenant_id]
    while len(tenants) < limit:
        follower = _next_tenant(connection, rank, tenants[-1])
        if follower is None or follower[0] != rank:
            break
        tenants.append(follower[1])
    share = -(-limit // len(tenants))
    queues = [_oldest(connection, rank, tenant, share) for tenant in tenants]
    if sum(map(len, queues)) < limit:  # some have less than their share
        queues = [
            _oldest(connection, rank, tenant, limit) if len(queue) == share else queue
            for tenant, queue in zip(tenants, queues, strict=True)
        ]
    rounds = itertools.zip_longest(*queues)
    taken = [row for each in rounds for row in sorted(row for row in each if row is not None)]
    return [job_id for _, job_id in taken[:limit]]


def _oldest(connection: Connection, rank: int, tenant_id: str, num: int) -> list[tuple[int, str]]:
    values = {"of_rank": rank, "of_tenant": tenant_id, "num": num}
    return [(int(r.created_ns), r.job_id) for r in connection.execute(_OLDEST, values)]
