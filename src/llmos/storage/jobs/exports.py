"""Results become files: ordered rows of one stream, a line each, in a blob of their own."""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select

from llmos.abi.blob import BlobRef
from llmos.abi.ids import new_id
from llmos.abi.jobs import Attempt, JobSpec
from llmos.abi.program import RAW
from llmos.storage.blobs import Blobs, Hold
from llmos.storage.disk import drop_volatile, mapped
from llmos.storage.jobs.tx import CURRENT, Tx, of
from llmos.storage.tables import files, job_results, jobs
from llmos.telemetry.faults import reached

PURPOSE = "batch_output"
_BUFFER_BYTES = 1 << 20
_ROWS_AT_ONCE = 256
_IS_CURRENT = select(jobs.c.job_id).where(CURRENT)


@dataclass
class Exported:
    """The files-to-be of one attempt. `num_rows`: results there were when they were read."""

    num_rows: int
    names: dict[str, str]
    blobs: dict[str, BlobRef | None] = field(default_factory=dict)


class Exporter:
    """Writes streams of results into blobs. Blocking: runs on a reader's thread."""

    def __init__(self, scratch: Path, blobs: Blobs) -> None:
        self._scratch = scratch
        self._blobs = blobs

    def export(
        self, connection: Connection, attempt: Attempt, names: dict[str, str], hold: Hold
    ) -> Exported | None:
        """Every stream of `names` as it is in this snapshot, under `hold`; None when the attempt
        is an old one. Memory is bounded by the longest row. Raises DiskFull, StorageError."""
        if connection.execute(_IS_CURRENT, of(attempt)).first() is None:
            return None
        made = Exported(num_results(connection, attempt.job_id), names)
        for stream in names:
            made.blobs[stream] = self._export(connection, attempt.job_id, stream, hold)
        reached("jobs.export.sealed")
        return made

    def gather(self, connection: Connection, attempt: Attempt, stream: str, path: Path) -> bool:
        """Write one stream as it is in this snapshot to a new file; False when the attempt is an
        old one. Raises DiskFull, StorageError."""
        if connection.execute(_IS_CURRENT, of(attempt)).first() is None:
            return False
        with mapped(f"gathering {stream[:64]} of {attempt.job_id}"):
            path.unlink(missing_ok=True)  # of a try on a full disk
            _write(connection, attempt.job_id, stream, path)
        return True

    def _export(
        self, connection: Connection, job_id: str, stream: str, hold: Hold
    ) -> BlobRef | None:
        temporary = self._scratch / f"export-{uuid.uuid4().hex}"
        try:
            with mapped(f"exporting {stream} of {job_id}"):
                digest = _write(connection, job_id, stream, temporary)
            if temporary.stat().st_size == 0:
                return None
            return self._blobs.adopt(temporary, hold, digest=digest)
        finally:
            drop_volatile(temporary)


def _write(connection: Connection, job_id: str, stream: str, path: Path) -> str:
    """A stream's rows into a new file; its digest. Memory is bounded by the longest row."""
    query = (
        select(job_results.c.body)
        .where(job_results.c.job_id == job_id, job_results.c.stream == stream)
        .order_by(job_results.c.position, job_results.c.key)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    digest, is_raw = hashlib.sha256(), stream.startswith(RAW)
    with connection.execute(query) as rows:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb", buffering=_BUFFER_BYTES) as writer:
            for row in rows:
                whole = is_raw or row.body.endswith(b"\n")
                line = row.body if whole else row.body + b"\n"
                writer.write(line)
                digest.update(line)
    return f"sha256:{digest.hexdigest()}"


def num_results(connection: Connection, job_id: str) -> int:
    """How many results are kept. They are never changed, so an equal number is equal results."""
    query = select(func.count()).select_from(job_results).where(job_results.c.job_id == job_id)
    return int(connection.execute(query).scalar_one())


def add_files(tx: Tx, job: Row[Any], made: Exported, now_ns: int) -> dict[str, str | None]:
    """The files' rows; ids by stream, None for a stream without rows."""
    ids: dict[str, str | None] = {}
    kept_s = msgspec.json.decode(job.spec, type=JobSpec).exports_expire_s
    expires_ns = None if kept_s is None else now_ns + int(kept_s * 1e9)
    for stream, blob in made.blobs.items():
        ids[stream] = None
        if blob is None:
            continue
        ids[stream] = file_id = new_id("file")
        tx.connection.execute(
            insert(files).values(
                file_id=file_id,
                tenant_id=job.tenant_id,
                principal_id=job.principal_id,
                filename=made.names[stream],
                purpose=PURPOSE,
                digest=blob.digest,
                size_bytes=blob.size_bytes,
                created_ns=now_ns,
                expires_ns=expires_ns,
                epoch=tx.epoch,
            )
        )
    return ids


def drop_results(tx: Tx, job_id: str) -> None:
    """What is in files is no longer kept in rows."""
    tx.connection.execute(delete(job_results).where(job_results.c.job_id == job_id))
