"""A consistent copy of a home, made while it is in use. Blocking; `HomeKeeper` runs it in a thread.

The database is copied with `VACUUM INTO` on a read-only connection of its own: a single read
transaction, so the copy is one moment's state, and writers go on beside it. Blobs never change, so
they are hard-linked where that can be, else copied and read back; each one's digest is computed
from what now lies in the backup. Nothing is a backup before its last file is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from llmos.errors import Cancelled, Conflict, DiskFull, InvalidRequest, LLMOSError, StorageError
from llmos.storage.blobs import CHUNK_BYTES, Blobs
from llmos.storage.disk import mapped, remove_tree, sync_folder, write_atomic
from llmos.storage.manifest import (
    DATABASE,
    MANIFEST,
    SEAL,
    BackupFile,
    Manifest,
    encode,
    hash_file,
)
from llmos.telemetry.faults import reached

UNFINISHED = "unfinished"
"""A file that is in a backup while it is being written; one that was killed is written anew."""

_MARK = b"LLMOS is writing a backup here, or was when it ended\n"
_OURS = frozenset({"db", "blobs", MANIFEST, UNFINISHED})
_CANNOT_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def check_target(path: str, home: Path) -> Path:
    """Where a backup may go. Raises InvalidRequest, Conflict (something is there)."""
    target = Path(path)
    if not target.is_absolute() or "\0" in path:
        raise InvalidRequest(f"{path[:200]!r} is not an absolute path", param="path")
    with mapped(f"looking at {target}"):
        target = target.parent.resolve() / target.name
        if target.name in ("", ".", "..") or not target.parent.is_dir():
            raise InvalidRequest(f"{target.parent} is not a folder", param="path")
        if target.is_relative_to(home.resolve()) or home.resolve().is_relative_to(target):
            raise InvalidRequest("a backup lies outside the home it is of", param="path")
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise Conflict(f"{target} exists and is not a folder", param="path")
        if target.is_dir() and any(target.iterdir()) and not _was_ours(target):
            raise Conflict(f"{target} is not empty", param="path")
    return target


def _was_ours(target: Path) -> bool:
    """A backup that was being written when its server died, and nothing else."""
    mark = target / UNFINISHED
    names = {entry.name for entry in target.iterdir()}
    return mark.is_file() and mark.read_bytes() == _MARK and names <= _OURS


class BackupWriter:
    """Writes one backup: `begin`, `copy_database`, `add_blobs`, `seal`; or `discard` at any time.

    `cancel` may be called from another thread; what runs then raises Cancelled.
    """

    def __init__(self, target: Path, blobs: Blobs) -> None:
        self.target = target
        self.missing: list[str] = []
        self._blobs = blobs
        self._files: list[BackupFile] = []
        self._stop = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._began = False
        self._made = False

    def cancel(self) -> None:
        """Ask whatever runs to end soon."""
        self._stop.set()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # it closed at this moment
                connection.interrupt()

    def begin(self) -> None:
        """Make the folder, private and marked as unfinished."""
        with mapped(f"making {self.target}"):
            self._made = not self.target.exists()
            self.target.mkdir(mode=0o700, exist_ok=True)
            self.target.chmod(0o700)
            self._began = True
            write_atomic(self.target / UNFINISHED, _MARK, 0o600)
            for entry in self.target.iterdir():
                if entry.name != UNFINISHED:
                    remove_tree(entry)
            (self.target / "db").mkdir(mode=0o700)
            (self.target / "blobs").mkdir(mode=0o700)
            (self.target / "blobs" / "sha256").mkdir(mode=0o700)
        reached("backup.begin.marked")

    def copy_database(self, source: Path) -> Path:
        """The database as it is now. Raises StorageError, DiskFull."""
        copy = self.target / DATABASE
        self._check()
        with mapped(f"copying {source.name}"):
            os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            self._connection = _read_only(source)
            self._check()
            self._connection.execute("VACUUM INTO ?", (str(copy),))
        except sqlite3.Error as error:
            self._check()
            raise _typed(error, f"copying {source.name}") from error
        finally:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        reached("backup.database.copied")
        check_database(copy)
        self._record(copy)
        return copy

    def add_blobs(self, digests: Iterable[str]) -> None:
        """Put the blobs beside it. One that is gone or damaged is left out and is in `missing`."""
        for digest in sorted(digests):
            self._check()
            source = self._blobs.path(digest)
            hexadecimal = digest.removeprefix("sha256:")
            copy = self.target / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal
            with mapped(f"copying blob {hexadecimal[:16]}"):
                copy.parent.mkdir(mode=0o700, exist_ok=True)
                if not self._link_or_copy(source, copy):
                    self.missing.append(digest)
                    continue
            found = self._record(copy)
            if found.sha256 != hexadecimal:
                self._files.pop()
                remove_tree(copy)
                self.missing.append(digest)
            reached("backup.blobs.stored")

    def seal(self, manifest: Manifest) -> Manifest:
        """Everything is there: make it durable, then say so. The manifest with all files."""
        self._check()
        whole = Manifest(
            **{name: getattr(manifest, name) for name in manifest.__struct_fields__}
            | {"files": self._files, "missing": self.missing}
        )
        body, seal = encode(whole)
        with mapped(f"finishing {self.target}"):
            folders = [path for path in self.target.rglob("*") if path.is_dir()]
            for folder in [*folders, self.target]:
                sync_folder(folder)
            write_atomic(self.target / MANIFEST, body, 0o600)
            reached("backup.seal.before_unmark")
            (self.target / UNFINISHED).unlink()
            reached("backup.seal.before_seal")
            write_atomic(self.target / SEAL, seal, 0o600)
            sync_folder(self.target.parent)
        reached("backup.seal.sealed")
        return whole

    def discard(self) -> None:
        """Leave nothing of it; the folder itself stays if it was there before."""
        if not self._began:
            return
        with contextlib.suppress(OSError):
            for entry in list(self.target.iterdir()):
                remove_tree(entry)
            if self._made:
                self.target.rmdir()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Cancelled("the backup was given up")

    def _link_or_copy(self, source: Path, copy: Path) -> bool:
        """False: the source is not there, or cannot be read."""
        try:
            os.link(source, copy)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            if copy.parent.stat().st_dev == source.parent.stat().st_dev:
                self._blobs.require_free(source.stat().st_size)
            return self._copy(source, copy)
        return True

    def _copy(self, source: Path, copy: Path) -> bool:
        fd = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with os.fdopen(fd, "wb", buffering=0) as writer, source.open("rb", buffering=0) as reader:
            while chunk := reader.read(CHUNK_BYTES):
                self._check()
                view = memoryview(chunk)
                while view:
                    view = view[writer.write(view) :]
            os.fsync(fd)
            # what is read back must come from the disk, not from the memory it was written from
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return True

    def _record(self, path: Path) -> BackupFile:
        """Read a file of the backup and put it on the list."""

        def check(_: int) -> None:
            self._check()

        size_bytes, digest = hash_file(path, check)
        made = BackupFile(path.relative_to(self.target).as_posix(), size_bytes, digest)
        self._files.append(made)
        return made


def check_database(path: Path) -> None:
    """Have SQLite look through a database nobody has open. Raises StorageError naming it."""
    try:
        with contextlib.closing(_immutable(path)) as connection:
            problems = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
            problems = [] if problems == ["ok"] else problems
            problems += [
                f"a row of {table} refers to one of {parent} that is not there"
                for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchmany(
                    3
                )
            ]
    except sqlite3.Error as error:
        raise StorageError(f"{path} is no sound database: {error}") from error
    if problems:
        raise StorageError(f"{path} is damaged: {'; '.join(map(str, problems))}")


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )


def _immutable(path: Path) -> sqlite3.Connection:
    """Leaves no file beside it, whatever mode the database is in."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)


def _typed(error: sqlite3.Error, what: str) -> LLMOSError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return DiskFull(f"{what}: the disk is full")
    return StorageError(f"{what}: {error}")
