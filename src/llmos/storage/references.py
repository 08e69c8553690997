"""Which rows refer to which blobs. The only place that knows all of them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Select, create_engine, delete, func, literal, select, union
from sqlalchemy.exc import SQLAlchemyError

from llmos.abi.jobs import JobState
from llmos.errors import StorageError
from llmos.storage.tables import blobs, boots, files, job_files, jobs, keys, model_files, models

MODELS: dict[str, Select[tuple[str]]] = {"models": select(model_files.c.digest)}
"""What the home's own database refers to."""

JOBS: dict[str, Select[tuple[str]]] = {
    "files": select(files.c.digest),
    # a removed or expired file's bytes stay for the jobs that read it, until they have ended
    "inputs": select(job_files.c.digest)
    .join(jobs, jobs.c.job_id == job_files.c.job_id)
    .where(jobs.c.ended_ns.is_(None)),
    # of an ended job too: one that did not succeed may be retried from there
    "checkpoints": select(jobs.c.checkpoint_digest).where(
        jobs.c.checkpoint_digest.is_not(None), jobs.c.state != JobState.SUCCEEDED
    ),
}
"""What the database of jobs and files refers to, which may lie elsewhere."""


def references_of(
    connection: Connection, queries: Mapping[str, Select[tuple[str]]]
) -> dict[str, set[str]]:
    """By use, the digests that queries of MODELS and JOBS find. One statement: one moment."""
    parts = [
        select(literal(name).label("used"), query.subquery().c[0].label("digest"))
        for name, query in queries.items()
    ]
    found: dict[str, set[str]] = {name: set() for name in queries}
    for used, digest in connection.execute(union(*parts)):
        found[used].add(digest)
    return found


def all_references(connection: Connection) -> dict[str, set[str]]:
    """By use, all that this one database refers to."""
    return references_of(connection, MODELS | JOBS)


def forget_unused(connection: Connection) -> int:
    """Drop rows of blobs that no model refers to any more; how many."""
    unused = blobs.c.digest.not_in(select(model_files.c.digest))
    return connection.execute(delete(blobs).where(unused)).rowcount


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a copy of the database holds. `counts` are rows by kind."""

    digests: set[str]
    counts: dict[str, int]
    revision: str
    epoch: int


def snapshot_of(path: Path) -> Snapshot:
    """Look into a copy that nobody has open; nothing is left beside it. Raises StorageError."""
    engine = create_engine(
        "sqlite+pysqlite://",
        creator=lambda: sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True),
    )
    try:
        with contextlib.closing(engine.connect()) as connection:
            return Snapshot(
                set().union(*all_references(connection).values()),
                _counts(connection),
                str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()),
                int(connection.execute(select(func.max(boots.c.epoch))).scalar() or 0),
            )
    except SQLAlchemyError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    finally:
        engine.dispose()


def _counts(connection: Connection) -> dict[str, int]:
    live = select(func.count()).select_from(models).where(models.c.removed_ns.is_(None))
    found = {"models": int(connection.execute(live).scalar_one())}
    for name, table in {"files": files, "jobs": jobs, "keys": keys}.items():
        count = select(func.count()).select_from(table)
        found[name] = int(connection.execute(count).scalar_one())
    return found
