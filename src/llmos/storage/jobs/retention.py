"""Forgetting: ended jobs, keys, files and requests past their time, a bounded part at a time."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.sql.schema import Column, Table

from llmos.storage.jobs.control import forget
from llmos.storage.jobs.tx import Tx
from llmos.storage.tables import files, idempotency, jobs, requests

MAX_ROWS = 10_000
"""Most rows of one kind deleted in a transaction."""
_NS = 1_000_000_000


def retain(tx: Tx, now_ns: int) -> int:
    """As `JobStore.retain`; to be called again while it finds something."""
    limits = tx.limits
    num = _jobs(tx, now_ns - int(limits.keep_jobs_s * _NS))
    key_ns = now_ns - int(limits.keep_idempotency_s * _NS)
    num += _old(tx, idempotency, idempotency.c.created_ns, key_ns)
    num += _old(tx, files, files.c.expires_ns, now_ns)
    request_ns = now_ns - int(limits.keep_requests_s * _NS)
    return num + _old(tx, requests, requests.c.created_ns, request_ns)


def _jobs(tx: Tx, before_ns: int) -> int:
    query = (
        select(jobs.c.job_id, jobs.c.state)
        .where(jobs.c.ended_ns <= before_ns)
        .order_by(jobs.c.ended_ns)
        .limit(tx.limits.retain_jobs)
        .with_for_update(skip_locked=True)
    )
    old = tx.connection.execute(query).all()
    for row in old:
        tx.moved(row.state, None)
    return forget(tx, [row.job_id for row in old]) if old else 0


def _old(tx: Tx, table: Table, time: Column[int], before_ns: int) -> int:
    """Delete rows up to a time, or to the time of the MAX_ROWS-th of them."""
    nth = select(time).where(time <= before_ns).order_by(time).offset(MAX_ROWS).limit(1)
    bound_ns = tx.connection.execute(nth).scalar()
    until_ns = before_ns if bound_ns is None else int(bound_ns)
    return tx.connection.execute(delete(table).where(time <= until_ns)).rowcount
