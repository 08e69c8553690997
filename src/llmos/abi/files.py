"""Files: named bytes of an owner, kept as blobs. OpenAI's Files and what jobs read and write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.jobs import Idempotency


class FileRecord(msgspec.Struct, frozen=True):
    """Times are UTC in ns; `expires_ns` None: kept until it is removed."""

    file_id: str
    tenant_id: str
    principal_id: str
    filename: str
    purpose: str
    digest: str
    size_bytes: int
    created_ns: int
    expires_ns: int | None = None


class FileFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """`after` is the last id of the page before. `newest_first` as OpenAI's `order=desc`."""

    tenant_id: str | None = None
    purpose: str | None = None
    after: str | None = None
    limit: int = 100
    newest_first: bool = True


class FileStore(Protocol):
    """File records over blobs. A change is on disk when its method returns."""

    async def add(
        self, upload_id: str, record: FileRecord, idempotency: Idempotency | None = None
    ) -> FileRecord:
        """Take a finished upload of one file into the store; `digest` and `size_bytes` of `record`
        are filled in. With an idempotency key seen before from this principal: the file of then.

        Raises NotFound (no such upload), IdempotencyMismatch, InvalidRequest (not one file),
        StorageError, DiskFull."""
        ...

    async def get(self, file_id: str) -> FileRecord:
        """Raises NotFound, also for one that has expired."""
        ...

    async def page(self, query: FileFilter) -> list[FileRecord]: ...

    async def remove(self, file_id: str) -> FileRecord:
        """Raises NotFound. A job that reads it already goes on: its bytes stay until it ends."""
        ...

    async def blob(self, file_id: str) -> BlobRef:
        """Where its bytes lie on this machine, for workers and `BlobSource`. Raises NotFound."""
        ...

    async def adopt(self, path: str, folder: str | None = None) -> BlobRef:
        """Bytes a worker wrote into its scratch folder become a blob (a checkpoint): moved, hashed,
        synced. It is collected once nothing refers to it. `folder` is the worker's own; what lies
        elsewhere is refused. Raises StorageError, DiskFull."""
        ...


class BlobSource(Protocol):
    """Where `api` reads bytes from that it may send to a client."""

    def read(self, ref: BlobRef, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Chunks of bytes `start` to `end` (exclusive). Raises NotFound, StorageError."""
        ...
