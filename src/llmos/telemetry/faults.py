"""Crash points: named places on the durable write paths where a test may kill, fail or stall us.

In production `reached` is one test of a global. `make storm` and tests install a hook, which gets
the point's name and may end the process, raise an OSError, or wait. Names are
`area.operation.place`; what has happened before a point is in its line below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

POINTS: dict[str, str] = {
    "database.group.begun": "a transaction is open, nothing is in it yet",
    "database.group.before_commit": "every write of the group is made, none is durable",
    "database.group.after_commit": "all are durable, no caller has been answered",
    "database.checkpoint.before": "the write-ahead log is about to be copied into the database",
    "database.checkpoint.after": "the write-ahead log has been copied into the database",
    "database.migrate.before_commit": "every statement of the upgrade has run, none is durable",
    "database.migrate.after_commit": "the upgrade is durable, the server run is not counted yet",
    "jobs.export.sealed": "a job's output files are blobs, no row names them, the job goes on",
    "jobs.finish.exported": "rows name the output files and the results are gone, none durable",
    "requests.flush.written": "records of requests are written and not durable",
    "uploads.write.received": "an uploaded file is whole in scratch, its upload does not have it",
    "uploads.take.before_move": "a finished upload is about to leave the uploads",
    "blobs.seal.synced": "a new blob's bytes are durable, it has no name in the store",
    "blobs.seal.renamed": "a new blob has its name, which is not durable",
    "blobs.sweep.before_delete": "a blob that nothing refers to is about to be deleted",
    "files.add.stored": "a file's blob is durable, no row refers to it",
    "files.add.committed": "a file's row is durable, its caller has not been answered",
    "files.adopt.stored": "a checkpoint's blob is durable, no job refers to it",
    "snapshots.spill.copied": "a snapshot's copy is durable on the disk under a name of its own",
    "snapshots.spill.placed": "a snapshot's copy has its name, which is not durable",
    "snapshots.keep.spilled": "a suspended request's snapshot is durable, no record names it",
    "snapshots.keep.written": "a suspended request's record is durable, its caller is not answered",
    "snapshots.forget.unlinked": "a suspended request's record is gone, which is not durable",
    "snapshots.recover.read": "an earlier server's suspended requests are read, nothing is deleted",
    "footprints.flush.written": "what models take is written and not durable",
    "housekeeping.collect.marked": "a sweep knows what is wanted, nothing is deleted",
    "housekeeping.collect.swept": "blobs were deleted, the rows of theirs were not",
    "backup.begin.marked": "a backup's folder is there, marked as unfinished",
    "backup.database.copied": "a backup has its database and no blob",
    "backup.blobs.stored": "a backup has one blob more",
    "backup.seal.before_unmark": "a backup has its manifest and is still marked as unfinished",
    "backup.seal.before_seal": "a backup lacks only the manifest's digest",
    "backup.seal.sealed": "a backup is whole, its caller has not been answered",
    "restore.backup.verified": "every byte of a backup was read, nothing is written",
    "restore.file.placed": "a home being restored has one file more",
    "restore.staging.checked": "a restored home is whole beside its place",
    "restore.home.aside": "the old home is aside, the new one is not in its place",
    "restore.home.in_place": "the restored home is in its place",
}
"""Every point, in the words of what is true when it is reached. A test holds them to their uses."""

Hook = Callable[[str], None]

_hook: Hook | None = None


def reached(point: str) -> None:
    """Tell the installed hook, if any. What the hook raises is raised here."""
    if _hook is not None:
        _hook(point)


def install(hook: Hook | None) -> None:
    """Set the hook of this process; None removes it. For tests and `make storm` only."""
    global _hook  # noqa: PLW0603  one process, one storm
    _hook = hook


@contextmanager
def installed(hook: Hook) -> Iterator[None]:
    """`install` for the length of a block."""
    install(hook)
    try:
        yield
    finally:
        install(None)
