"""What is on the disk in the end: read from the database and the blobs, without the server."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, func, select, text

from llmos.abi.jobs import ENDED
from llmos.storage.tables import (
    boots,
    files,
    idempotency,
    job_counts,
    job_events,
    job_files,
    job_needs,
    job_results,
    jobs,
)

ENDED_STATES = frozenset(state.value for state in ENDED)


@dataclass(frozen=True)
class Row:
    """A job. `keys`: of the results in its output file, in order; None: it has no such file."""

    job_id: str
    tag: str
    state: str
    epoch: int
    outcome: str
    num_deaths: int
    num_starts: int
    started_ns: int | None
    ended_ns: int | None
    is_claimed: bool
    parent_id: str | None
    needs: list[str]
    keys: list[str] | None
    num_results: int = 0
    answer: str | None = None
    """The text of a durable call."""


@dataclass
class Snapshot:
    """`damage`: what is wrong with the disk itself, in words."""

    jobs: dict[str, Row] = field(default_factory=dict)
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Tag (its filename) and digest, by id."""
    made_with: dict[str, list[str]] = field(default_factory=dict)
    """Ids by idempotency key."""
    epochs: list[int] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def outcome_of(outputs: Any, error: Any) -> str:
    """A digest by which two outcomes are equal or not."""
    data = json.dumps([outputs, error], sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def key_of(line: bytes) -> str:
    """The key of a line of an output file: a batch's by its custom id."""
    made = json.loads(line)
    return str(made.get("custom_id") or made.get("key"))


def take(home: Path, url: str = "") -> Snapshot:
    """Of a home nobody has open. `url`: where its jobs are, if not there."""
    sqlite = home / "db" / "llmos.db"
    engine = create_engine(url or f"sqlite+pysqlite:///{sqlite}")
    made = Snapshot()
    try:
        with engine.connect() as connection:
            _read(connection, home, made, is_sqlite=not url)
    finally:
        engine.dispose()
    if not url:
        made.epochs = _epochs(sqlite)
    return made


def _read(connection: Connection, home: Path, made: Snapshot, *, is_sqlite: bool) -> None:
    if is_sqlite:
        _check_sqlite(connection, made)
    blobs = {path.name: path for path in (home / "blobs" / "sha256").glob("*/*")}
    _read_files(connection, blobs, made)
    _read_jobs(connection, blobs, made)
    _check_counts(connection, made)
    _check_references(connection, blobs, made)
    made.made_with = {
        row.key: json.loads(row.ids) for row in connection.execute(select(idempotency))
    }


def _epochs(sqlite: Path) -> list[int]:
    engine = create_engine(f"sqlite+pysqlite:///{sqlite}")
    with engine.connect() as connection:
        found = connection.execute(select(boots.c.epoch).order_by(boots.c.started_ns))
        epochs = list(found.scalars())
    engine.dispose()
    return epochs


def _check_sqlite(connection: Connection, made: Snapshot) -> None:
    found = connection.execute(text("PRAGMA integrity_check")).scalars().all()
    made.damage += [f"integrity_check: {line}" for line in found if line != "ok"]
    broken = connection.execute(text("PRAGMA foreign_key_check")).all()
    made.damage += [f"foreign_key_check: {row}" for row in broken]


def _read_files(connection: Connection, blobs: dict[str, Path], made: Snapshot) -> None:
    hashed: dict[str, str] = {}
    for row in connection.execute(select(files)):
        made.files[row.file_id] = (row.filename, row.digest)
        if row.expires_ns is not None and row.expires_ns < time.time_ns():
            made.damage.append(f"{row.file_id} ({row.filename}) has expired already")
        name = row.digest.removeprefix("sha256:")
        if name not in blobs:
            made.damage.append(f"the bytes of {row.file_id} ({row.filename}) are gone")
        elif name not in hashed:
            hashed[name] = hashlib.sha256(blobs[name].read_bytes()).hexdigest()
            if hashed[name] != name:
                made.damage.append(f"the bytes of {row.file_id} ({row.filename}) are not its own")


def _read_jobs(connection: Connection, blobs: dict[str, Path], made: Snapshot) -> None:
    needs: dict[str, list[str]] = {}
    for row in connection.execute(select(job_needs)):
        needs.setdefault(row.job_id, []).append(row.need_id)
    count = select(job_results.c.job_id, func.count().label("num")).group_by(job_results.c.job_id)
    num_results = {row.job_id: row.num for row in connection.execute(count)}
    for row in connection.execute(select(jobs)):
        outputs = json.loads(row.outputs) if row.outputs else None
        error = json.loads(row.error) if row.error else None
        made.jobs[row.job_id] = Row(
            job_id=row.job_id,
            tag=_tag_of(json.loads(row.spec)),
            state=row.state,
            epoch=row.epoch,
            outcome=outcome_of(outputs, error),
            num_deaths=row.num_deaths,
            num_starts=row.num_starts,
            started_ns=row.started_ns,
            ended_ns=row.ended_ns,
            is_claimed=row.holder_epoch is not None,
            parent_id=row.parent_id,
            needs=needs.get(row.job_id, []),
            keys=_keys(outputs, blobs, made),
            num_results=num_results.get(row.job_id, 0),
            answer=((outputs or {}).get("answer") or {}).get("text"),
        )


def _tag_of(spec: dict[str, Any]) -> str:
    return str(spec.get("name") or spec.get("metadata", {}).get("tag", ""))


def _keys(outputs: Any, blobs: dict[str, Path], made: Snapshot) -> list[str] | None:
    file_id = ((outputs or {}).get("files") or {}).get("output")
    if file_id not in made.files:
        return None
    blob = blobs.get(made.files[file_id][1].removeprefix("sha256:"))
    return None if blob is None else [key_of(line) for line in blob.read_bytes().splitlines()]


def _check_counts(connection: Connection, made: Snapshot) -> None:
    told: Counter[str] = Counter()
    for row in connection.execute(select(job_counts)):
        told[row.state] += row.num_jobs
    real = Counter(row.state for row in made.jobs.values())
    if +told != real:
        made.damage.append(f"counts say {dict(+told)}, there are {dict(real)}")


def _check_references(connection: Connection, blobs: dict[str, Path], made: Snapshot) -> None:
    for table in (job_needs, job_files, job_events, job_results):
        of_none = table.c.job_id.not_in(select(jobs.c.job_id))
        if num := connection.execute(select(func.count()).where(of_none)).scalar():
            made.damage.append(f"{num} rows of {table.name} belong to no job")
    for row in connection.execute(select(jobs).where(jobs.c.checkpoint_digest.is_not(None))):
        lives = row.state not in ENDED_STATES
        if lives and row.checkpoint_digest.removeprefix("sha256:") not in blobs:
            made.damage.append(f"the checkpoint of {row.job_id} is gone")
    events = select(
        job_events.c.job_id, func.count(), func.max(job_events.c.number), jobs.c.num_events
    ).join(jobs, jobs.c.job_id == job_events.c.job_id)
    for job_id, num, newest, told in connection.execute(
        events.group_by(job_events.c.job_id, jobs.c.num_events)
    ):
        if not num == newest == told:
            made.damage.append(f"{job_id} has {num} events, the newest {newest}, told {told}")
