"""The Housekeeping seam: the home as a whole, copied, swept and measured."""

from __future__ import annotations

from typing import Protocol

import msgspec


class BackupReport(msgspec.Struct, frozen=True, tag="r.backup"):
    path: str
    num_files: int
    size_bytes: int
    took_s: float


class DiskReport(msgspec.Struct, frozen=True, tag="r.disk"):
    """The disk ledger, in bytes. `by_use` sums blobs by what refers to them.

    `floor_bytes` of the free ones are never used; `freed_bytes` by the last collection.
    """

    total_bytes: int
    free_bytes: int
    floor_bytes: int
    num_blobs: int
    blob_bytes: int
    by_use: dict[str, int] = {}
    database_bytes: int = 0
    unused_bytes: int = 0
    freed_bytes: int = 0


class Housekeeping(Protocol):
    """Works on a running server's home. Nothing that is in use is ever deleted."""

    async def back_up(self, path: str) -> BackupReport:
        """A consistent copy of everything but secrets of workers, into a folder that does not
        exist yet or is empty; whole or not at all. Raises InvalidRequest, Conflict, DiskFull."""
        ...

    async def collect(self) -> DiskReport:
        """Delete blobs that no model, file, checkpoint or running job refers to."""
        ...

    async def disk(self) -> DiskReport: ...
