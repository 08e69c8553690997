"""Suspended requests on two tiers, and across a restart. Implements `abi.SnapshotStore`.

MEMORY is a folder on a tmpfs, DISK is one of the home. Workers write into both, whole files that
are synced nowhere; a copy made here, and whatever a record names, has been synced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

from msgspec.structs import replace

from llmos.abi.blob import SnapshotRef
from llmos.abi.suspended import SuspendedRequest, Tier
from llmos.errors import DiskFull, SnapshotRejected, StorageError
from llmos.storage.config import StorageConfig
from llmos.storage.copying import copy_checked, is_whole, rejected, sync_file
from llmos.storage.disk import (
    finished,
    folder_bytes,
    mapped,
    sync_folder,
    whole,
    write_atomic,
)
from llmos.storage.home import Home
from llmos.storage.suspended import (
    MAX_RECORD_BYTES,
    SUFFIX,
    decode_record,
    encode_record,
    is_snapshot_name,
    record_name,
)
from llmos.storage.tmpfs import find_memory_folder
from llmos.telemetry.faults import reached

log = logging.getLogger("llmos.storage")


class Snapshots:
    """One per open home, on one loop. `available_bytes` is what the host has left; None: unknown,
    and then nothing more is put into its memory."""

    def __init__(
        self,
        home: Home,
        config: StorageConfig | None = None,
        available_bytes: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._config = config or StorageConfig()
        self._available_bytes = available_bytes
        self._memory = find_memory_folder(home.path)
        self._folders = {Tier.DISK: home.snapshots}
        if self._memory is not None:
            self._folders[Tier.MEMORY] = self._memory.path
        self._spilling = asyncio.Lock()
        """One copy at a time: what it found free is then still free."""
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._copies: dict[str, Path] = {}
        """By request: made by `keep`, of a snapshot that somebody else holds. They go with it."""

    def close(self) -> None:
        """Give the host's memory back: no record is of what is there. Idempotent."""
        if self._memory is not None:
            self._memory.close()

    def folder(self, tier: Tier) -> str:
        """See `abi.SnapshotStore`."""
        return str(self._folders.get(tier, ""))

    def free_bytes(self, tier: Tier) -> int:
        """See `abi.SnapshotStore`. What suspended requests have on the disk is bounded too."""
        folder = self._folders.get(tier)
        if folder is None:
            return 0
        try:
            free = shutil.disk_usage(folder).free
            if tier is Tier.MEMORY:
                return min(free, self._available_bytes() or 0)
            left = self._config.max_snapshot_bytes - folder_bytes(folder)
            return max(0, min(free - self._config.min_free_bytes, left))
        except OSError:
            return 0

    async def spill(self, ref: SnapshotRef) -> SnapshotRef:
        """See `abi.SnapshotStore`."""
        if self._tier(ref) is Tier.DISK:
            return ref
        copy = await self._copied(ref)
        # it is the caller's from now on
        self._copies = {r: path for r, path in self._copies.items() if path != copy}
        return replace(ref, path=str(copy))

    def discard(self, ref: SnapshotRef) -> None:
        """See `abi.SnapshotStore`."""
        with contextlib.suppress(SnapshotRejected):
            self._tier(ref)
            _delete(Path(ref.path))

    async def keep(self, request: SuspendedRequest) -> None:
        """See `abi.SnapshotStore`. Without its snapshot where that is not what it was: it is
        computed again then. Records may use the floor: they are of what was accepted before."""
        path = self._record(request.request_id)
        await finished(self._keep(path, request))

    async def forget(self, request_id: str) -> None:
        """See `abi.SnapshotStore`."""
        try:
            path = self._record(request_id)
        except StorageError:
            return  # there is none
        await finished(self._forget(path, request_id))

    async def recover(self) -> list[SuspendedRequest]:
        """See `abi.SnapshotStore`."""
        try:
            return await whole(self._recover)
        except StorageError as error:
            log.error("suspended requests of an earlier server are not found: %s", error)
            return []

    # inside

    def _tier(self, ref: SnapshotRef) -> Tier:
        """Where it lies: right in one of our folders. Raises SnapshotRejected."""
        parent, name = os.path.split(ref.path)
        if is_snapshot_name(name):
            for tier, folder in self._folders.items():
                if str(folder) == parent:
                    return tier
        raise rejected("missing", "lies in no folder of this server")

    def _record(self, request_id: str) -> Path:
        return self._folders[Tier.DISK] / record_name(request_id)

    def _turn(self, request_id: str) -> asyncio.Lock:
        """What keeps and forgets one request do so in the order in which they came."""
        return self._turns.setdefault(request_id, asyncio.Lock())

    async def _keep(self, path: Path, request: SuspendedRequest) -> None:
        async with self._turn(request.request_id):
            before = self._copies.get(request.request_id)
            made, kept = await self._kept_snapshot(request)
            try:
                await whole(_write_record, path, replace(request, snapshot=kept))
            except BaseException:
                if made is not None and made != before:
                    _delete(made)
                raise
            self._own(request.request_id, made)

    async def _forget(self, path: Path, request_id: str) -> None:
        async with self._turn(request_id):
            try:
                await whole(_forget_record, path)
            except StorageError as error:
                log.warning("the record of %s stays: %s", request_id, error)
            self._own(request_id, None)

    def _own(self, request_id: str, copy: Path | None) -> None:
        """The request's copy is this one now, and the one before is not needed."""
        before = self._copies.pop(request_id, None)
        if copy is not None:
            self._copies[request_id] = copy
        if before is not None and before != copy:
            _delete(before)

    async def _kept_snapshot(
        self, request: SuspendedRequest
    ) -> tuple[Path | None, SnapshotRef | None]:
        """The copy that had to be made, and what the record says. Raises DiskFull, StorageError."""
        ref = request.snapshot
        if ref is None:
            return None, None
        made = None
        try:
            if self._tier(ref) is Tier.DISK:
                await whole(sync_file, ref)
            else:
                made = await self._copied(ref)
        except SnapshotRejected as error:
            log.warning("%s will be computed again: %s", request.request_id, error.message)
            return None, None
        return made, replace(ref, path=Path(ref.path).name)

    async def _copied(self, ref: SnapshotRef) -> Path:
        """Its copy on the disk, made if it is not there. Raises as `spill`."""
        target = self._folders[Tier.DISK] / Path(ref.path).name
        async with self._spilling:
            if is_whole(target, ref.size_bytes):
                return target
            self._require_free(ref.size_bytes)
            stop = threading.Event()
            try:
                await whole(copy_checked, ref, target, stop.is_set, on_cancel=stop.set)
            except asyncio.CancelledError:
                _delete(target)
                raise
        return target

    def _require_free(self, size_bytes: int) -> None:
        free = self.free_bytes(Tier.DISK)
        if size_bytes > free:
            raise DiskFull(
                f"a snapshot of {size_bytes} bytes does not fit: suspended requests may use {free} "
                "more of the disk",
                details={"wanted_bytes": size_bytes, "free_bytes": free},
            )

    def _recover(self) -> list[SuspendedRequest]:
        with mapped("looking for suspended requests"):
            found = {record_name(r.request_id): r for r in self._read_records()}
            reached("snapshots.recover.read")
            snapshots = {Path(r.snapshot.path).name for r in found.values() if r.snapshot}
            _delete_all_but(self._folders[Tier.DISK], snapshots | found.keys())
            if Tier.MEMORY in self._folders:  # no record is of what is there
                _delete_all_but(self._folders[Tier.MEMORY], set())
        return [found[name] for name in sorted(found)]

    def _read_records(self) -> Iterator[SuspendedRequest]:
        folder = self._folders[Tier.DISK]
        for path in [path for path in folder.iterdir() if path.suffix == SUFFIX]:
            try:
                request = _read_record(path)
            except (OSError, StorageError) as error:
                log.error("a suspended request is lost: %s: %s", path.name, error)
                continue
            yield replace(request, snapshot=_find_snapshot(folder, request))


def _find_snapshot(folder: Path, request: SuspendedRequest) -> SnapshotRef | None:
    """With the path it has now. None where it is not, or not whole: then it is computed again."""
    ref = request.snapshot
    if ref is None:
        return None
    path = folder / ref.path
    if not is_whole(path, ref.size_bytes):
        log.warning("the snapshot of %s is not there any more", request.request_id)
        return None
    return replace(ref, path=str(path))


def _read_record(path: Path) -> SuspendedRequest:
    """Raises OSError, StorageError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_size > MAX_RECORD_BYTES:
            raise StorageError("it is not of this user, or too long")
        request = decode_record(file.read())
    if record_name(request.request_id) != path.name:
        raise StorageError(f"it is of {request.request_id}")
    return request


def _write_record(path: Path, request: SuspendedRequest) -> None:
    """Raises DiskFull, StorageError."""
    data = encode_record(request)
    with mapped("keeping a suspended request"):
        reached("snapshots.keep.spilled")
        write_atomic(path, data, 0o600)
        reached("snapshots.keep.written")


def _forget_record(path: Path) -> None:
    """Raises StorageError."""
    with mapped("forgetting a suspended request"), contextlib.suppress(FileNotFoundError):
        path.unlink()
        reached("snapshots.forget.unlinked")
        sync_folder(path.parent)  # else it may be served again after a loss of power


def _delete_all_but(folder: Path, wanted: set[str]) -> None:
    """Files of a folder that nobody else has business in."""
    for entry in list(os.scandir(folder)):
        if entry.name not in wanted and not entry.is_dir(follow_symlinks=False):
            _delete(Path(entry.path))


def _delete(path: Path) -> None:
    """Gone from the folder at once; giving back gigabytes takes a while, and is done elsewhere."""
    fd = None
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a snapshot cannot be deleted: %s", error)
    if fd is not None:
        try:
            asyncio.get_running_loop().run_in_executor(None, os.close, fd)
        except RuntimeError:  # no loop here, or one that ends
            os.close(fd)
