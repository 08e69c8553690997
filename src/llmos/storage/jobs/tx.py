"""One transaction of the job store: its connection, who writes, and what it has changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    select,
    text,
    update,
)

from llmos.abi.jobs import Attempt, JobState
from llmos.errors import NotFound
from llmos.storage.config import StorageConfig
from llmos.storage.jobs.rows import plain, queue_of
from llmos.storage.tables import jobs

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
        change = update(jobs).where(jobs.c.job_id == old["job_id"]).values(**values)
        return self.connection.execute(change.returning(*jobs.c)).one()

    def moved(self, before: str | None, after: str | None, num: int = 1) -> None:
        """Count `num` jobs that changed their state; None: not in the store."""
        if before == after:
            return
        if before is not None:
            self.counts[before] -= num
        if after is not None:
            self.counts[after] += num

    def end(self) -> None:
        """Write what is kept once per transaction."""
        changed = [
            {"epoch": self.epoch, "state": state, "num": num}
            for state, num in sorted(self.counts.items())
            if num
        ]
        if changed:
            self.connection.execute(_TALLY, changed)
        if self.wakes and self.shared:
            self.connection.exec_driver_sql(f"NOTIFY {NOTIFY}")


def is_current(attempt: Attempt) -> ColumnElement[bool]:
    """The job's row, if this attempt is the one that goes on."""
    return and_(
        jobs.c.job_id == attempt.job_id,
        jobs.c.num_starts == attempt.number,
        jobs.c.holder_epoch == attempt.epoch,
        jobs.c.state.in_((JobState.RUNNING.value, JobState.SUSPENDED.value)),
    )


def find_current(tx: Tx, attempt: Attempt) -> Row[Any] | None:
    """The locked row of the attempt's job, None when it is an old one."""
    return tx.connection.execute(select(jobs).where(is_current(attempt)).with_for_update()).first()
