"""The home as a whole: swept, measured, backed up. Implements `abi.Housekeeping`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from llmos import __version__
from llmos.abi.home import BackupReport, DiskReport
from llmos.errors import Conflict, LLMOSError
from llmos.storage.backup import BackupWriter, check_target
from llmos.storage.blobs import Blobs, Sweep
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database
from llmos.storage.disk import folder_bytes, whole
from llmos.storage.files import FilesDatabase
from llmos.storage.home import FORMAT as HOME_FORMAT
from llmos.storage.home import Home
from llmos.storage.manifest import FORMAT, Manifest
from llmos.storage.references import (
    JOBS,
    MODELS,
    all_references,
    forget_unused,
    references_of,
    snapshot_of,
)
from llmos.storage.uploads import Uploads
from llmos.telemetry.faults import reached
from llmos.telemetry.metrics import Metrics

T = TypeVar("T")
log = logging.getLogger("llmos.storage")
_MAX_MISSING_TOLD = 100

ELSEWHERE = (
    "jobs and files are in the PostgreSQL database of storage.jobs_url, which is not in this "
    "backup: copy it with pg_dump; the bytes of files and checkpoints are in it"
)


class HomeKeeper:
    """One per open home, on one loop.

    `jobs_database` holds jobs and files: `database` itself, or one that lies elsewhere.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        jobs_database: FilesDatabase,
        blobs: Blobs,
        uploads: Uploads,
        *,
        metrics: Metrics,
        config: StorageConfig | None = None,
    ) -> None:
        self._home = home
        self._database = database
        self._blobs = blobs
        self._uploads = uploads
        self._jobs_database = jobs_database
        self._metrics = metrics
        self._config = config or StorageConfig()
        self._sweeping = asyncio.Lock()
        """Held by a sweep, and by a backup until it holds the blobs it is going to copy."""
        self._backing_up = False
        self._began_s = -math.inf
        self._freed_bytes = 0
        self._known_missing: set[str] = set()
        metrics.disk_free_bytes.set_function(lambda: shutil.disk_usage(home.path).free)

    async def run(self) -> None:
        """Sweep now and then, until cancelled; sooner when the disk fills. A sweep that cannot be
        made is made later."""
        while True:
            if self._is_due():
                self._began_s = time.monotonic()
                try:
                    await self._uploads.drop_idle()
                    await self.collect()
                except LLMOSError as error:
                    log.warning("the home was not swept: %s", error)
            await asyncio.sleep(self._config.collect_check_s)

    def _is_due(self) -> bool:
        config, blobs = self._config, self._blobs
        age_s = time.monotonic() - self._began_s
        if age_s < config.collect_retry_s:
            return False
        is_filling = blobs.was_refused or blobs.new_bytes >= config.collect_after_bytes
        return is_filling or age_s >= config.collect_interval_s

    async def collect(self) -> DiskReport:
        """See `abi.Housekeeping`. Raises StorageError; nothing is deleted when it is not known
        what is in use."""
        async with self._sweeping:
            with self._blobs.sweep() as sweep:
                uses = await self._read_uses()
                reached("housekeeping.collect.marked")
                self._freed_bytes = await whole(_delete_unused, sweep, uses)
            reached("housekeeping.collect.swept")
            await self._database.write(forget_unused)
        if sweep.num_deleted:
            log.info("deleted %d blobs, %d bytes", sweep.num_deleted, self._freed_bytes)
        self._metrics.collected_bytes.inc(self._freed_bytes)
        return await self._report(uses)

    async def disk(self) -> DiskReport:
        """See `abi.Housekeeping`."""
        return await self._report(await self._read_uses())

    async def back_up(self, path: str) -> BackupReport:
        """See `abi.Housekeeping`. One at a time. Cancelled or failed, it leaves nothing."""
        if self._backing_up:
            raise Conflict("a backup is being made already")
        self._backing_up = True
        started_s = time.monotonic()
        try:
            target = await asyncio.to_thread(check_target, path, self._home.path)
            writer = BackupWriter(target, self._blobs)
            try:
                made = await self._write_backup(writer)
            except BaseException:
                await whole(writer.discard)
                raise
        finally:
            self._backing_up = False
        took_s = time.monotonic() - started_s
        self._metrics.last_backup.set(time.time())
        return BackupReport(
            str(target), len(made.files), made.size_bytes, took_s, made.notes, made.missing
        )

    async def _write_backup(self, writer: BackupWriter) -> Manifest:
        with self._blobs.hold() as hold:
            async with self._sweeping:
                await self._step(writer, writer.begin)
                copy = await self._step(writer, lambda: writer.copy_database(self._database.path))
                snapshot = await asyncio.to_thread(snapshot_of, copy)
                # of a database that lies elsewhere, what it refers to now
                referred = snapshot.digests.union(*(await self._read_uses()).values())
                self._blobs.keep(referred, hold)
            await self._step(writer, lambda: writer.add_blobs(referred))
            draft = Manifest(
                format=FORMAT,
                version=__version__,
                home_format=HOME_FORMAT,
                revision=snapshot.revision,
                epoch=self._database.epoch,
                created_ns=time.time_ns(),
                counts=snapshot.counts,
                missing=[],
                notes=[] if self._is_one_database else [ELSEWHERE],
                files=[],
            )
            return await self._step(writer, lambda: writer.seal(draft))

    async def _step(self, writer: BackupWriter, work: Callable[[], T]) -> T:
        return await whole(work, on_cancel=writer.cancel)

    async def _read_uses(self) -> dict[str, set[str]]:
        """By use, the digests that committed rows refer to."""
        if self._is_one_database:
            return await self._database.read(all_references)
        models = await self._database.read(lambda c: references_of(c, MODELS))
        return models | await self._jobs_database.read(lambda c: references_of(c, JOBS))

    @property
    def _is_one_database(self) -> bool:
        return self._jobs_database is self._database

    async def _report(self, uses: dict[str, set[str]]) -> DiskReport:
        # in a thread, since there may be a million of them
        report, missing = await asyncio.to_thread(self._measure, uses, self._blobs.held())
        if missing:  # what was forgotten and swept in between is not lost
            wanted = set().union(*(await self._read_uses()).values())
            missing = {d for d in missing & wanted if not self._blobs.path(d).exists()}
        first = sorted(missing)[:_MAX_MISSING_TOLD]
        report = msgspec.structs.replace(report, num_missing=len(missing), missing=first)
        self._tell_missing(missing)
        self._metrics.blob_bytes.set(report.blob_bytes)
        self._metrics.missing_blobs.set(report.num_missing)
        return report

    def _measure(self, uses: dict[str, set[str]], held: set[str]) -> tuple[DiskReport, set[str]]:
        """The ledger, and the digests that are referred to and not there."""
        sizes = self._blobs.sizes()
        missing = set().union(*uses.values()) - sizes.keys()
        by_use, left = {}, dict(sizes)
        for name, digests in [*uses.items(), ("held", held)]:
            by_use[name] = sum(left.pop(digest, 0) for digest in digests)
        usage = shutil.disk_usage(self._home.path)
        report = DiskReport(
            total_bytes=usage.total,
            free_bytes=usage.free,
            floor_bytes=self._config.min_free_bytes,
            num_blobs=len(sizes),
            blob_bytes=sum(sizes.values()),
            by_use=by_use,
            database_bytes=_database_bytes(self._database.path),
            unused_bytes=sum(left.values()),
            freed_bytes=self._freed_bytes,
            snapshot_bytes=folder_bytes(self._home.snapshots),
        )
        return report, missing

    def _tell_missing(self, missing: set[str]) -> None:
        for digest in sorted(missing - self._known_missing)[:_MAX_MISSING_TOLD]:
            log.error("blob %s is referred to, but is not in the store", digest)
        self._known_missing = missing


def _delete_unused(sweep: Sweep, uses: dict[str, set[str]]) -> int:
    return sweep.delete_all_but(set().union(*uses.values()))


def _database_bytes(path: Path) -> int:
    """With its write-ahead log. `stat` only: to open the file would drop SQLite's locks."""
    total = 0
    for file in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total
