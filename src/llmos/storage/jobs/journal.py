"""What attempts report while they run: progress, events, results, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Connection,
    Integer,
    Row,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from llmos.abi.blob import BlobRef
from llmos.abi.jobs import Attempt, JobEvent, JobProgress, NewEvent, ResultRow
from llmos.errors import InvalidRequest, NotFound, OffsetLost
from llmos.storage.jobs.rows import plain, to_json
from llmos.storage.jobs.tx import CURRENT, Tx, find_current, of
from llmos.storage.tables import job_events, job_results, jobs

MAX_EVENTS_READ = 10_000
MAX_KEY_CHARS = 512
MAX_WORD_CHARS = 96
_value = msgspec.json.Decoder(dict[str, Any])

_PROGRESS = update(jobs).where(CURRENT).values(progress=bindparam("new"))
_CHECKPOINT = (
    update(jobs)
    .where(CURRENT)
    .values(checkpoint=bindparam("new"), checkpoint_digest=bindparam("digest"))
)
_COUNTED = update(jobs).values(num_events=jobs.c.num_events + bindparam("num", type_=Integer))
_COUNT = _COUNTED.where(CURRENT).returning(jobs.c.num_events)
_COUNT_ANY = _COUNTED.where(jobs.c.job_id == bindparam("of_job")).returning(jobs.c.num_events)
_ADD = insert(job_events)
_TRIM = delete(job_events).where(
    job_events.c.job_id == bindparam("of_job"), job_events.c.number < bindparam("oldest")
)

# one statement for both databases, which SQLAlchemy's own upserts are not
_PUT = text(
    "INSERT INTO job_results (job_id, stream, key, position, body) "
    "VALUES (:job_id, :stream, :key, :position, :body) ON CONFLICT DO NOTHING"
)


def progress(tx: Tx, attempt: Attempt, new: JobProgress) -> bool:
    """As `JobStore.progress`."""
    done = tx.connection.execute(_PROGRESS, {**of(attempt), "new": to_json(new)})
    return done.rowcount == 1


def checkpoint(tx: Tx, attempt: Attempt, state: BlobRef) -> bool:
    """As `JobStore.checkpoint`."""
    values = {"new": to_json(state), "digest": state.digest}
    return tx.connection.execute(_CHECKPOINT, {**of(attempt), **values}).rowcount == 1


def append(tx: Tx, attempt: Attempt, events: Sequence[NewEvent]) -> int | None:
    """As `JobStore.append`."""
    newest = tx.connection.execute(_COUNT, {**of(attempt), "num": len(events)}).scalar()
    return _append(tx, attempt.job_id, newest, events)


def note(tx: Tx, job_id: str, events: Sequence[NewEvent]) -> int | None:
    """As `JobStore.note`."""
    newest = tx.connection.execute(_COUNT_ANY, {"of_job": job_id, "num": len(events)}).scalar()
    return _append(tx, job_id, newest, events)


def _append(tx: Tx, job_id: str, newest: int | None, events: Sequence[NewEvent]) -> int | None:
    """Keep events of which the last is number `newest`."""
    if newest is None:
        return None
    kept = events[-tx.limits.max_job_events :]
    first = newest - len(kept) + 1
    rows = [
        {
            "job_id": job_id,
            "number": number,
            "at_ns": event.at_ns,
            "kind": plain(event.kind)[:MAX_WORD_CHARS],
            "value": _bounded(event.value, tx.limits.max_event_bytes),
        }
        for number, event in enumerate(kept, first)
    ]
    if rows:
        tx.connection.execute(_ADD, rows)
    oldest = newest - tx.limits.max_job_events + 1
    if oldest > 1:
        tx.connection.execute(_TRIM, {"of_job": job_id, "oldest": oldest})
    return int(newest)


def _bounded(value: dict[str, Any], max_bytes: int) -> str:
    """JSON of an event's value; of one that is too long, its beginning as text."""
    data = msgspec.json.encode(value)
    if len(data) > max_bytes:
        start = data[:max_bytes].decode(errors="ignore")
        data = msgspec.json.encode({"cut": start, "size_bytes": len(data)})
    return data.decode()


def events(
    connection: Connection, job_id: str, after: int, limit: int, kinds: Sequence[str]
) -> list[JobEvent]:
    """As `JobStore.events`. After 0 comes the oldest that is kept; any other number must have its
    successor, or be the newest."""
    newest = connection.execute(select(jobs.c.num_events).where(jobs.c.job_id == job_id)).scalar()
    if newest is None:
        raise NotFound(f"no job {job_id[:80]!r}", param="job_id")
    oldest = connection.execute(
        select(func.min(job_events.c.number)).where(job_events.c.job_id == job_id)
    ).scalar()
    first = newest + 1 if oldest is None else oldest
    if after != 0 and not first - 1 <= after <= newest:
        raise OffsetLost(
            f"event {after + 1} of {job_id} is not kept: there are {first} to {newest}",
            param="after",
            details={"oldest": first, "newest": newest},
        )
    query = (
        select(job_events)
        .where(job_events.c.job_id == job_id, job_events.c.number > after)
        .order_by(job_events.c.number)
        .limit(min(max(limit, 0), MAX_EVENTS_READ))
    )
    if kinds:
        query = query.where(job_events.c.kind.in_(list(kinds)))
    return [_event(row) for row in connection.execute(query)]


def _event(row: Row[Any]) -> JobEvent:
    return JobEvent(row.job_id, row.number, row.at_ns, row.kind, _value.decode(row.value))


def put_results(tx: Tx, attempt: Attempt, rows: Sequence[ResultRow]) -> bool:
    """As `JobStore.put_results`."""
    if find_current(tx, attempt) is None:
        return False
    values = [
        {
            "job_id": attempt.job_id,
            "stream": _checked(row.stream, MAX_WORD_CHARS, "stream"),
            "key": _checked(row.key, MAX_KEY_CHARS, "key"),
            "position": row.order,
            "body": row.body,
        }
        for row in rows
    ]
    if values:
        tx.connection.execute(_PUT, values)
    return True


def _checked(name: str, max_chars: int, param: str) -> str:
    if len(name) > max_chars or plain(name) != name:
        raise InvalidRequest(f"a result's {param} has at most {max_chars} characters", param=param)
    return name


def result_keys(connection: Connection, job_id: str) -> list[tuple[str, str]]:
    """As `JobStore.result_keys`."""
    query = (
        select(job_results.c.stream, job_results.c.key)
        .where(job_results.c.job_id == job_id)
        .order_by(job_results.c.stream, job_results.c.position, job_results.c.key)
    )
    return [(row.stream, row.key) for row in connection.execute(query)]
