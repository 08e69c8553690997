"""A snapshot's file copied with a check of every byte. Only its end is known here: the last 32
bytes are the SHA-256 of all before them, which is its digest (`drivers.snapshots.file`)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from llmos.abi.blob import SnapshotRef
from llmos.errors import Cancelled, SnapshotRejected
from llmos.storage.disk import mapped, sync_folder
from llmos.telemetry.faults import reached

CHUNK_BYTES = 1 << 20
_DIGEST_BYTES = 32


def rejected(reason: str, text: str) -> SnapshotRejected:
    """The error of a file that cannot be used. It reaches clients: it names no path."""
    return SnapshotRejected(f"the snapshot {text}", details={"reason": reason})


def is_whole(path: Path, size_bytes: int) -> bool:
    """Whether a regular file of ours, of so many bytes, is there."""
    try:
        return _is_ours(path.lstat(), size_bytes)
    except OSError:
        return False


def _is_ours(status: os.stat_result, size_bytes: int) -> bool:
    is_file = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    return is_file and status.st_size == size_bytes


def copy_checked(ref: SnapshotRef, target: Path, is_stopped: Callable[[], bool]) -> None:
    """Make `target` of mode 0600, durable, whole or not at all. Blocking.

    Raises SnapshotRejected, DiskFull, StorageError, Cancelled (`is_stopped` said so).
    """
    part = target.with_name(f"{target.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with _opened(ref) as reader, mapped("copying a snapshot"), contextlib.ExitStack() as undo:
        undo.callback(_unlink, part)
        with FileIO(os.open(part, flags, 0o600), "wb") as writer:
            os.fchmod(writer.fileno(), 0o600)
            _copy(reader, writer, ref, is_stopped)
            os.fsync(writer.fileno())
        reached("snapshots.spill.copied")
        undo.callback(_unlink, target)
        part.replace(target)
        reached("snapshots.spill.placed")
        sync_folder(target.parent)
        undo.pop_all()


def sync_file(ref: SnapshotRef) -> None:
    """Make a snapshot on the disk durable, which its worker did not. Its bytes are not looked at.

    Blocking. Raises SnapshotRejected, DiskFull, StorageError.
    """
    with _opened(ref) as file, mapped("keeping a snapshot"):
        os.fsync(file.fileno())
        sync_folder(Path(ref.path).parent)


@contextlib.contextmanager
def _opened(ref: SnapshotRef) -> Iterator[FileIO]:
    """Raises SnapshotRejected."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = FileIO(os.open(ref.path, flags), "rb")
    except FileNotFoundError as error:
        raise rejected("missing", "is not there") from error
    except (OSError, ValueError) as error:
        raise rejected("damaged", "cannot be opened") from error
    with file:
        if not _is_ours(os.fstat(file.fileno()), ref.size_bytes) or ref.size_bytes < _DIGEST_BYTES:
            raise rejected("damaged", "is not the file that was written")
        yield file


def _copy(reader: FileIO, writer: FileIO, ref: SnapshotRef, is_stopped: Callable[[], bool]) -> None:
    digest, left = hashlib.sha256(), ref.size_bytes - _DIGEST_BYTES
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while left:
        if is_stopped():
            raise Cancelled("nobody waits for the copy any more")
        part = buffer[: min(left, CHUNK_BYTES)]
        _fill(reader, part)
        digest.update(part)
        _put(writer, part)
        left -= len(part)
    end = buffer[:_DIGEST_BYTES]
    _fill(reader, end)
    if end != digest.digest() or ref.digest != f"sha256:{digest.hexdigest()}":
        raise rejected("damaged", "is damaged: its bytes are not the ones that were written")
    _put(writer, end)


def _fill(reader: FileIO, view: memoryview) -> None:
    while view:
        try:
            num_read = reader.readinto(view)
        except OSError as error:
            raise rejected("damaged", f"cannot be read: {error.strerror}") from error
        if not num_read:
            raise rejected("damaged", "is cut short")
        view = view[num_read:]


def _put(writer: FileIO, view: memoryview) -> None:
    while view:
        view = view[writer.write(view) :]


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
