"""Files: rows over blobs. Implements `abi.FileStore`."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    delete,
    func,
    insert,
    or_,
    select,
)

from llmos.abi.blob import BlobRef
from llmos.abi.files import FileFilter, FileRecord
from llmos.abi.jobs import Idempotency
from llmos.errors import InvalidRequest, NotFound, QuotaExceeded, StorageError
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.disk import drop_volatile, finished, mapped, whole
from llmos.storage.home import Home
from llmos.storage.jobs.keys import keep_key
from llmos.storage.tables import files, job_files, jobs
from llmos.storage.uploads import Uploads
from llmos.telemetry.faults import reached

T = TypeVar("T")
MAX_PAGE = 20_000
"""Above what a caller may ask for: who pages asks for one more, to see whether there is more."""
_FIELDS = FileRecord.__struct_fields__


class FilesDatabase(Protocol):
    """The database that holds jobs and files, wherever it is."""

    @property
    def epoch(self) -> int: ...

    async def read(self, fn: Callable[[Connection], T]) -> T: ...

    async def write(self, fn: Callable[[Connection], T]) -> T: ...


class Files:
    """One per home, on one loop."""

    def __init__(
        self,
        home: Home,
        database: FilesDatabase,
        blobs: Blobs,
        uploads: Uploads,
        config: StorageConfig | None = None,
    ) -> None:
        self._scratch = home.scratch
        self._database = database
        self._blobs = blobs
        self._uploads = uploads
        self._config = config or StorageConfig()

    async def add(
        self, upload_id: str, record: FileRecord, idempotency: Idempotency | None = None
    ) -> FileRecord:
        """See `abi.FileStore`. The upload is consumed whatever comes of it."""
        received = self._uploads.files_of(upload_id)
        folder = self._uploads.take(upload_id)
        return await finished(self._add(folder, received, record, idempotency))

    async def _add(
        self,
        folder: Path,
        received: dict[str, BlobRef],
        record: FileRecord,
        idempotency: Idempotency | None,
    ) -> FileRecord:
        def store() -> BlobRef:
            try:
                self._blobs.require_free(0)  # a row needs room too
                if len(received) != 1:
                    raise InvalidRequest(
                        f"a file is made of one uploaded file, not of {len(received)}",
                        param="upload_id",
                    )
                ((name, ref),) = received.items()
                return self._blobs.adopt(folder / name, hold, digest=ref.digest)
            finally:
                drop_volatile(folder)

        with self._blobs.hold() as hold:
            ref = await asyncio.to_thread(store)
            made = msgspec.structs.replace(record, digest=ref.digest, size_bytes=ref.size_bytes)
            reached("files.add.stored")
            made = await self._database.write(lambda c: self._store(c, made, idempotency))
        reached("files.add.committed")
        return made

    def _store(
        self, connection: Connection, made: FileRecord, idempotency: Idempotency | None
    ) -> FileRecord:
        epoch = self._database.epoch
        if idempotency is not None:
            owner, now_ns = made.principal_id, made.created_ns
            ids = keep_key(
                connection, owner, idempotency, [made.file_id], now_ns=now_ns, epoch=epoch
            )
            if ids is not None:
                return _of_then(connection, ids)
        self._check_quota(connection, made)
        row = {name: getattr(made, name) for name in _FIELDS} | {"epoch": epoch}
        connection.execute(insert(files).values(row))
        return made

    def _check_quota(self, connection: Connection, made: FileRecord) -> None:
        """Raises QuotaExceeded. What jobs export counts, too, but is never refused."""
        limit_bytes = self._config.max_tenant_file_bytes
        if not limit_bytes:
            return
        own = select(func.coalesce(func.sum(files.c.size_bytes), 0)).where(
            files.c.tenant_id == made.tenant_id, _visible()
        )
        if int(connection.execute(own).scalar_one()) + made.size_bytes > limit_bytes:
            raise QuotaExceeded(f"a tenant's files have at most {limit_bytes} bytes", param="file")

    async def get(self, file_id: str) -> FileRecord:
        """See `abi.FileStore`."""
        query = select(files).where(files.c.file_id == file_id, _visible())
        row = await self._database.read(lambda c: _first(c, query))
        if row is None:
            raise _not_found(file_id)
        return _record(row)

    async def page(self, query: FileFilter) -> list[FileRecord]:
        """See `abi.FileStore`. Raises InvalidRequest for a limit out of bounds."""
        if not 1 <= query.limit <= MAX_PAGE:
            raise InvalidRequest(f"limit is from 1 to {MAX_PAGE}", param="limit")
        column = files.c.file_id
        wanted = select(files).where(_visible())
        if query.tenant_id is not None:
            wanted = wanted.where(files.c.tenant_id == query.tenant_id)
        if query.purpose is not None:
            wanted = wanted.where(files.c.purpose == query.purpose)
        if query.after is not None:
            is_next = column < query.after if query.newest_first else column > query.after
            wanted = wanted.where(is_next)
        order = column.desc() if query.newest_first else column.asc()
        wanted = wanted.order_by(order).limit(query.limit)
        rows = await self._database.read(lambda c: c.execute(wanted).mappings().all())
        return [_record(row) for row in rows]

    async def remove(self, file_id: str) -> FileRecord:
        """See `abi.FileStore`. The bytes go with the next sweep, if nothing else wants them."""

        def forget(connection: Connection) -> FileRecord:
            wanted = select(files).where(files.c.file_id == file_id, _visible())
            row = _first(connection, wanted)
            if row is None:
                raise _not_found(file_id)
            connection.execute(delete(files).where(files.c.file_id == file_id))
            return _record(row)

        return await self._database.write(forget)

    async def blob(self, file_id: str) -> BlobRef:
        """See `abi.FileStore`; also of a file that is gone, while a job that reads it lives.

        Raises StorageError when the bytes are lost.
        """

        def find(connection: Connection) -> tuple[str, int] | None:
            wanted = select(files).where(files.c.file_id == file_id, _visible())
            row = _first(connection, wanted) or _first(connection, _kept_for_jobs(file_id))
            return None if row is None else (str(row["digest"]), int(row["size_bytes"]))

        found = await self._database.read(find)
        if found is None:
            raise _not_found(file_id)
        path = self._blobs.path(found[0])
        if not path.is_file():
            raise StorageError(f"the bytes of file {file_id} are gone from the store")
        return BlobRef(*found, str(path))

    async def adopt(self, path: str, folder: str | None = None) -> BlobRef:
        """See `abi.FileStore`. It is kept until `JobStore.checkpoint` has answered, or for
        `adopted_grace_s`."""

        def take() -> BlobRef:
            with self._blobs.hold() as hold:
                checked = self._checked(path, self._scratch if folder is None else Path(folder))
                ref = self._blobs.adopt(checked, hold)
                self._blobs.linger(ref.digest, self._config.adopted_grace_s)
                reached("files.adopt.stored")
                return ref

        return await whole(take)

    def _checked(self, path: str, folder: Path) -> Path:
        """A regular file below `folder`, itself of `scratch/`, reached by no link: a worker named
        it."""
        refused = StorageError(f"{path[:200]!r} is not a file of its worker's scratch folder")
        if "\0" in path:
            raise refused
        with mapped(f"taking {path[:200]!r}"):
            found = Path(os.path.realpath(path))
            owned = (self._scratch, folder)
            is_ours = all(found.is_relative_to(os.path.realpath(each)) for each in owned)
            if not is_ours or Path(path).is_symlink() or not stat.S_ISREG(found.lstat().st_mode):
                raise refused
        return found


def _of_then(connection: Connection, ids: list[str]) -> FileRecord:
    """The file that was made with an idempotency key before."""
    row = _first(connection, select(files).where(files.c.file_id.in_(ids), _visible()))
    if row is None:
        raise NotFound("the file that was made with this Idempotency-Key is gone")
    return _record(row)


def _visible() -> ColumnElement[bool]:
    return or_(files.c.expires_ns.is_(None), files.c.expires_ns > time.time_ns())


def _kept_for_jobs(file_id: str) -> Select[Any]:
    return (
        select(job_files.c.digest, job_files.c.size_bytes)
        .join(jobs, jobs.c.job_id == job_files.c.job_id)
        .where(job_files.c.file_id == file_id, jobs.c.ended_ns.is_(None))
        .limit(1)
    )


def _first(connection: Connection, query: Select[Any]) -> RowMapping | None:
    return connection.execute(query).mappings().first()


def _record(row: RowMapping) -> FileRecord:
    return FileRecord(**{name: row[name] for name in _FIELDS})


def _not_found(file_id: str) -> NotFound:
    return NotFound(f"no file {file_id[:80]!r}", param="file_id")
