"""Content-addressed, immutable files, and folders of hard links to them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from llmos.abi.blob import BlobRef
from llmos.errors import DigestMismatch, DiskFull, StorageError
from llmos.storage.config import StorageConfig
from llmos.storage.disk import drop_volatile, mapped, remove_tree, sync_folder
from llmos.storage.home import Home
from llmos.storage.names import check_filename
from llmos.telemetry.faults import reached

CHUNK_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_HEX = re.compile(r"[0-9a-f]{64}")
_CANNOT_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class DiskLedger(msgspec.Struct, frozen=True):
    """Bytes of the store and of its disk. `floor_bytes` of the free ones are never used."""

    num_blobs: int
    blob_bytes: int
    free_bytes: int
    total_bytes: int
    floor_bytes: int


class Hold:
    """The digests somebody needs for now. Once `ended`, nothing more can be added under it."""

    def __init__(self) -> None:
        self.digests: set[str] = set()
        self.ended = False


class Blobs:
    """The store under `blobs/`. Blocking: call it from a thread.

    A blob is visible only whole, verified and durable. Blobs added under a `hold` survive
    every sweep until it ends, so that whoever adds them has time to record that they are wanted.
    """

    def __init__(self, home: Home, config: StorageConfig | None = None) -> None:
        self._home = home
        self._config = config or StorageConfig()
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._lingering: dict[str, list[float]] = {}
        self._sweeps: list[set[str]] = []
        self.new_bytes = 0
        """Stored since the last sweep began."""
        self.was_refused = False
        """Something found no room since then."""

    def path(self, digest: str) -> Path:
        """Where a blob of this digest is, if it is."""
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise DigestMismatch(f"not a digest: {digest[:80]!r}")
        return self._home.blobs / match[1][:2] / match[1]

    def require_free(self, size_bytes: int, share: float = 1.0) -> None:
        """Raises DiskFull unless `size_bytes` more leave that share of the floor free."""
        free, floor = shutil.disk_usage(self._home.path).free, self._config.min_free_bytes * share
        if free - size_bytes < floor:
            self.was_refused = True
            raise DiskFull(
                f"the disk is too full: {size_bytes} bytes wanted, {free} free, of which "
                f"{floor:.0f} must stay free",
                details={"wanted_bytes": size_bytes, "free_bytes": free},
            )

    @contextlib.contextmanager
    def hold(self) -> Iterator[Hold]:
        """While this lasts, sweeps leave alone what is added under it."""
        hold = Hold()
        try:
            yield hold
        finally:
            with self._lock:
                hold.ended = True
                self._held.subtract(hold.digests)
                self._held += Counter()  # drops what nobody holds any more

    def keep(self, digests: Iterable[str], hold: Hold) -> None:
        """Hold blobs that may be there already. Raises StorageError once the hold has ended."""
        with self._lock:
            self._keep(digests, hold)

    def _keep(self, digests: Iterable[str], hold: Hold) -> None:
        if hold.ended:
            raise StorageError("the blobs are not wanted any more: given up meanwhile")
        for digest in digests:
            if digest not in hold.digests:
                hold.digests.add(digest)
                self._held[digest] += 1
            for spared in self._sweeps:
                spared.add(digest)

    def linger(self, digest: str, for_s: float) -> None:
        """Hold a blob until it is `settled`, or for a time: its bytes were handed over before
        anything refers to them."""
        with self._lock:
            self._lingering.setdefault(digest, []).append(time.monotonic() + for_s)
            for spared in self._sweeps:
                spared.add(digest)

    def settle(self, digest: str) -> None:
        """What was handed over is on record, or will never be. Without a `linger`: nothing."""
        with self._lock:
            deadlines = self._lingering.get(digest, [])
            if deadlines:
                deadlines.pop()
            if not deadlines:
                self._lingering.pop(digest, None)

    def held(self) -> set[str]:
        """What is held at this moment."""
        with self._lock:
            return self._held.keys() | self._lingering.keys()

    def copy(
        self, source: Path, hold: Hold, progress: Callable[[int], None] = lambda _: None
    ) -> BlobRef:
        """Copy a file nobody vouches for into the store, hashing what is written.

        `progress` gets bytes done since its last call. Raises DiskFull, StorageError.
        """
        temporary = self._home.scratch / f"blob-{uuid.uuid4().hex}"
        digest = hashlib.sha256()
        try:
            with mapped(f"copying {source.name}"):
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with source.open("rb") as reader, os.fdopen(fd, "wb") as writer:
                    self.require_free(os.fstat(reader.fileno()).st_size)
                    while chunk := reader.read(CHUNK_BYTES):
                        writer.write(chunk)
                        digest.update(chunk)
                        progress(len(chunk))
            return self._seal(temporary, f"sha256:{digest.hexdigest()}", hold)
        finally:
            drop_volatile(temporary)

    def adopt(
        self,
        path: Path,
        hold: Hold,
        progress: Callable[[int], None] = lambda _: None,
        digest: str | None = None,
    ) -> BlobRef:
        """Move a file of `scratch/` into the store. `digest`: the caller has just computed it.

        Raises DiskFull, StorageError.
        """
        if digest is None:
            with mapped(f"hashing {path.name}"):
                digest = _hashed(path, progress)
        return self._seal(path, digest, hold)

    def _seal(self, path: Path, digest: str, hold: Hold) -> BlobRef:
        target = self.path(digest)
        with mapped(f"storing {path.name}"):
            with path.open("rb") as file:
                os.fchmod(file.fileno(), 0o400)
                os.fsync(file.fileno())
                size_bytes = os.fstat(file.fileno()).st_size
            reached("blobs.seal.synced")
            with self._lock:
                self._keep([digest], hold)
                if target.exists() and target.stat().st_size == size_bytes:
                    path.unlink()
                else:
                    target.parent.mkdir(mode=0o700, exist_ok=True)
                    path.replace(target)
                    self.new_bytes += size_bytes
            reached("blobs.seal.renamed")
            sync_folder(target.parent)
            sync_folder(self._home.blobs)
        return BlobRef(digest, size_bytes, str(target))

    def link(self, folder_name: str, files: Mapping[str, str]) -> Path:
        """Make `models/FOLDER_NAME` with `files` (name to digest), whole or not at all.

        Hard links to the blobs; copies where the file system has no links. Read-only.
        """
        target = self._home.models / folder_name
        building = self._home.scratch / f"{folder_name}.{uuid.uuid4().hex}"
        try:
            with mapped(f"making {folder_name}"):
                building.mkdir(mode=0o700)
                for name, digest in files.items():
                    path = building / check_filename(name, folders=1)
                    path.parent.mkdir(mode=0o700, exist_ok=True)
                    self._link_or_copy(self.path(digest), path)
                sync_folder(building)
                remove_tree(target)
                building.replace(target)
                for folder in [target, *(p for p in target.iterdir() if p.is_dir())]:
                    folder.chmod(0o500)
                sync_folder(self._home.models)
        finally:
            remove_tree(building)
        return target

    def _link_or_copy(self, blob: Path, path: Path) -> None:
        try:
            os.link(blob, path)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            self.require_free(blob.stat().st_size)
            shutil.copyfile(blob, path)
            path.chmod(0o400)

    def unlink(self, folder_name: str) -> None:
        """Remove `models/FOLDER_NAME`, and what is cached of that version. Idempotent."""
        with mapped(f"removing {folder_name}"):
            remove_tree(self._home.models / folder_name)
            remove_tree(self._home.cache / folder_name)

    @contextlib.contextmanager
    def sweep(self) -> Iterator[Sweep]:
        """A sweep begins: read what is wanted inside, then delete the rest.

        A blob that was held at any time since the beginning is spared: whoever held it may have
        recorded that it is wanted after that was read.
        """
        spared: set[str] = set()
        with self._lock:
            self.new_bytes, self.was_refused = 0, False
            now_s = time.monotonic()
            self._lingering = {
                digest: left
                for digest, deadlines in self._lingering.items()
                if (left := [at for at in deadlines if at > now_s])
            }
            spared |= self._held.keys() | self._lingering.keys()
            self._sweeps.append(spared)
        try:
            yield Sweep(self, spared)
        finally:
            with self._lock:
                self._sweeps.remove(spared)

    def collect(self, wanted: set[str]) -> int:
        """Delete every blob that is neither `wanted` nor held; the bytes freed."""
        with self.sweep() as sweep:
            return sweep.delete_all_but(wanted)

    def delete_unless(self, spared: set[str], digest: str, path: Path) -> int:
        """The bytes freed: 0 when it is spared by now, or gone. For `Sweep`."""
        with self._lock:
            if digest in spared:
                return 0
            try:
                size_bytes = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return 0
        return size_bytes

    def sizes(self) -> dict[str, int]:
        """Every blob there is, with its bytes. Walks the store."""
        found = {}
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                found[f"sha256:{path.name}"] = path.stat().st_size
        return found

    def ledger(self) -> DiskLedger:
        """What the store uses and what the disk has. Walks the store."""
        sizes = self.sizes()
        usage = shutil.disk_usage(self._home.path)
        return DiskLedger(
            len(sizes), sum(sizes.values()), usage.free, usage.total, self._config.min_free_bytes
        )

    def _files(self) -> Iterator[Path]:
        for folder in self._home.blobs.iterdir():
            if folder.is_dir():
                yield from (path for path in folder.iterdir() if _HEX.fullmatch(path.name))


class Sweep:
    """One pass over the store. `num_deleted` blobs went so far."""

    def __init__(self, blobs: Blobs, spared: set[str]) -> None:
        self._blobs = blobs
        self._spared = spared
        self.num_deleted = 0

    def delete_all_but(self, wanted: set[str]) -> int:
        """The bytes freed. Dying anywhere inside leaves nothing that the next sweep does not."""
        freed = 0
        with mapped("collecting blobs"):
            for digest in self._blobs.sizes():
                if digest in wanted:
                    continue
                reached("blobs.sweep.before_delete")
                size_bytes = self._blobs.delete_unless(
                    self._spared, digest, self._blobs.path(digest)
                )
                freed += size_bytes
                self.num_deleted += size_bytes > 0
        return freed


def _hashed(path: Path, progress: Callable[[int], None]) -> str:
    """The file's digest; `progress` is told of bytes as they are read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            progress(len(chunk))
    return f"sha256:{digest.hexdigest()}"
