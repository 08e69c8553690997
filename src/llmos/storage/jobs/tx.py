"""One transaction of the job store: its connection, who writes, and what it has changed."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from llmos.abi.jobs import Attempt, JobState
from llmos.errors import NotFound
from llmos.storage.config import StorageConfig
from llmos.storage.jobs.rows import plain, queue_of
from llmos.storage.tables import jobs
from llmos.storage.writer import TAILS

NOTIFY = "llmos_jobs"
"""PostgreSQL's channel on which kernels hear that there is work."""

_FIND = select(jobs).where(jobs.c.job_id == bindparam("job_id")).with_for_update()
# one statement for both databases, which SQLAlchemy's own upserts are not
_TALLY = text(
    "INSERT INTO job_counts (epoch, state, num_jobs) VALUES (:epoch, :state, :num) "
    "ON CONFLICT (epoch, state) DO UPDATE SET num_jobs = job_counts.num_jobs + excluded.num_jobs"
)


@dataclass
class Tx:
    """What every statement of the store gets. `shared`: other kernels use the same database."""

    connection: Connection
    epoch: int
    limits: StorageConfig
    shared: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    wakes: bool = False

    def find(self, job_id: str) -> Row[Any] | None:
        """The job's row, locked until the transaction ends."""
        return self.connection.execute(_FIND, {"job_id": job_id}).first()

    def get(self, job_id: str) -> Row[Any]:
        """As `find`. Raises NotFound."""
        row = self.find(job_id)
        if row is None:
            raise NotFound(f"no job {job_id[:80]!r}", param="job_id")
        return row

    def change(self, row: Row[Any], **values: Any) -> Row[Any]:
        """Set columns of a job; what follows from them (its place in the queue, counts) follows."""
        old = row._mapping
        merged = {**old, **values}
        values["queue"] = queue_of(merged["state"], merged["holder_epoch"], merged["due_ns"])
        if "reason" in values:
            values["reason"] = plain(values["reason"])
        self.moved(old["state"], merged["state"])
        if values["queue"] is not None:
            self.wakes = True
        given = {f"new_{name}": value for name, value in values.items()}
        change = _change(tuple(sorted(values)))
        return self.connection.execute(change, {**given, "of_job": old["job_id"]}).one()

    def moved(self, before: str | None, after: str | None, num: int = 1) -> None:
        """Count `num` jobs that changed their state; None: not in the store."""
        if before == after:
            return
        if before is not None:
            self.counts[before] -= num
        if after is not None:
            self.counts[after] += num

    def end(self) -> None:
        """Leave what is written once for all that share the commit. Nothing may fail after it."""
        tails = self.connection.info[TAILS]
        tail = tails.setdefault("jobs", Tail(self.epoch, self.shared))
        tail.counts.update(self.counts)
        tail.wakes = tail.wakes or self.wakes


@dataclass
class Tail:
    """The end of a group: one change of the counts, one notice to other kernels."""

    epoch: int
    shared: bool
    counts: Counter[str] = field(default_factory=Counter)
    wakes: bool = False

    def __call__(self, connection: Connection) -> None:
        changed = [
            {"epoch": self.epoch, "state": state, "num": num}
            for state, num in sorted(self.counts.items())
            if num
        ]
        if changed:
            connection.execute(_TALLY, changed)
        if self.wakes and self.shared:
            connection.exec_driver_sql(f"NOTIFY {NOTIFY}")


@functools.cache
def _change(columns: tuple[str, ...]) -> ReturningUpdate[Any]:
    """Building a statement costs more than running it: each set of columns is built once."""
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in columns}
    which = jobs.c.job_id == bindparam("of_job")
    return update(jobs).where(which).values(values).returning(*jobs.c)


CURRENT = and_(
    jobs.c.job_id == bindparam("of_job"),
    jobs.c.num_starts == bindparam("of_number"),
    jobs.c.holder_epoch == bindparam("of_epoch"),
    or_(jobs.c.state == JobState.RUNNING.value, jobs.c.state == JobState.SUSPENDED.value),
)
"""The job's row, if the attempt given by `of` is the one that goes on."""
_FIND_CURRENT = select(jobs).where(CURRENT).with_for_update()


def of(attempt: Attempt) -> dict[str, Any]:
    """The parameters of `CURRENT`."""
    return {
        "of_job": attempt.job_id,
        "of_number": attempt.number,
        "of_epoch": attempt.epoch,
    }


def find_current(tx: Tx, attempt: Attempt) -> Row[Any] | None:
    """The locked row of the attempt's job, None when it is an old one."""
    return tx.connection.execute(_FIND_CURRENT, of(attempt)).first()
