"""The Housekeeping seam: the home as a whole, copied, swept and measured."""

from __future__ import annotations

from typing import Protocol

import msgspec


class BackupReport(msgspec.Struct, frozen=True, tag="r.backup"):
    """`notes` say what is not included; `missing` are digests that rows refer to and whose bytes
    were gone or damaged, and so are not in it."""

    path: str
    num_files: int
    size_bytes: int
    took_s: float
    notes: list[str] = []
    missing: list[str] = []


class DiskReport(msgspec.Struct, frozen=True, tag="r.disk"):
    """The disk ledger, in bytes. `by_use` sums blobs by what refers to them, each counted once.

    `floor_bytes` of the free ones are never used; `freed_bytes` by the last collection. `missing`
    are the first of `num_missing` digests that are referred to and not there: lost bytes.
    `snapshot_bytes` are of suspended requests, their records included.
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
    num_missing: int = 0
    missing: list[str] = []
    snapshot_bytes: int = 0


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
