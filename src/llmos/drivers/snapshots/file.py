"""The file of a snapshot: written whole or not at all, and read with everything checked.

    8   magic
    4   format, little-endian as all numbers here
    4   size of the header
    32  SHA-256 of the header, so that what it says can be trusted before the payload is read
    ..  header: `abi.SnapshotHeader` in msgpack
    ..  payload: the driver's tensors, one after the other, nothing between them
    32  SHA-256 of all that comes before it

Nothing of it is ever executed. Memory in use is one chunk beside the caller's buffers.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

import msgspec

from llmos.abi.snapshot import SNAPSHOT_FORMAT, SnapshotHeader
from llmos.errors import DiskFull, SnapshotRejected, StorageError

MAGIC = b"LLMOSNAP"
MAX_HEADER_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
"""Hashed while it is still in the processor's cache."""

_PREAMBLE = struct.Struct("<8sII32s")
_DIGEST_BYTES = 32
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


def rejected(reason: str, text: str) -> SnapshotRejected:
    """The error of a file that cannot be used. It reaches clients: it names no path."""
    return SnapshotRejected(f"the snapshot {text}", details={"reason": reason})


class _Writing:
    """Bytes to a file, unbuffered, and their digest."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            part = view[start : start + CHUNK_BYTES]
            self._hash.update(part)
            self._put(part)
        self.num_bytes += len(view)

    def finish(self) -> bytes:
        """The digest, written behind what it is of."""
        digest = self._hash.digest()
        self._put(memoryview(digest))
        return digest

    def _put(self, part: memoryview) -> None:
        while part:
            part = part[self._file.write(part) :]


def write(
    folder: Path, name: str, header: SnapshotHeader, payload: Iterable[memoryview]
) -> tuple[int, str]:
    """Make the file `name` of mode 0600: its size and digest. Raises DiskFull, StorageError.

    `payload` yields `header.payload_bytes` bytes in all.
    """
    encoded = msgspec.msgpack.encode(header)
    if len(encoded) > MAX_HEADER_BYTES:
        raise StorageError(f"a snapshot's header of {len(encoded)} bytes")
    preamble = _PREAMBLE.pack(
        MAGIC, SNAPSHOT_FORMAT, len(encoded), hashlib.sha256(encoded).digest()
    )
    expected = _PREAMBLE.size + len(encoded) + header.payload_bytes
    try:
        with _whole_or_nothing(folder, name) as file:
            out = _Writing(file)
            out.write(preamble)
            out.write(encoded)
            for part in payload:
                out.write(part)
            if out.num_bytes != expected:
                raise StorageError(f"a snapshot of {out.num_bytes} bytes, not {expected}")
            digest = out.finish()
    except OSError as error:
        kind = DiskFull if error.errno in _FULL else StorageError
        raise kind(f"a snapshot cannot be written: {error.strerror}") from error
    return expected + _DIGEST_BYTES, f"sha256:{digest.hex()}"


@contextlib.contextmanager
def _whole_or_nothing(folder: Path, name: str) -> Iterator[FileIO]:
    """A file that has its name once the block is done. Raises OSError.

    It is made without any name where the system can, so that even a killed process leaves nothing.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    part: str | None = None
    try:
        fd = _open_unnamed(folder_fd)
        if fd is None:
            part = f"{name}.part"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(part, flags, 0o600, dir_fd=folder_fd)
        with FileIO(fd, "wb") as file:
            yield file
            if part is None:
                os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=folder_fd, follow_symlinks=True)
            else:
                os.rename(part, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
                part = None
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=folder_fd)
        os.close(folder_fd)


def _open_unnamed(folder_fd: int) -> int | None:
    """A new file without a name; None where there is no such thing. Raises OSError."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder_fd)
    except OSError as error:
        if error.errno in _NO_UNNAMED:
            return None
        raise


class SnapshotReader:
    """An open snapshot: its header, then all of its payload at once."""

    def __init__(self, file: FileIO, size_bytes: int) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size_bytes = size_bytes
        self.header = self._read_header()

    def _read_header(self) -> SnapshotHeader:
        preamble = bytearray(_PREAMBLE.size)
        self._read(memoryview(preamble))
        magic, number, header_bytes, digest = _PREAMBLE.unpack(preamble)
        if magic != MAGIC:
            raise rejected("damaged", "is no snapshot")
        if number != SNAPSHOT_FORMAT:
            age = "newer" if number > SNAPSHOT_FORMAT else "older"
            raise rejected("format", f"has format {number}, {age} than {SNAPSHOT_FORMAT}")
        if header_bytes > min(MAX_HEADER_BYTES, self._size_bytes):
            raise rejected("damaged", "has a damaged header")
        encoded = bytearray(header_bytes)
        self._read(memoryview(encoded))
        if hashlib.sha256(encoded).digest() != digest:
            raise rejected("damaged", "has a damaged header")
        try:
            header = msgspec.msgpack.decode(encoded, type=SnapshotHeader)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise rejected("damaged", f"has a header that is none: {error}") from error
        whole = _PREAMBLE.size + header_bytes + header.payload_bytes + _DIGEST_BYTES
        if self._size_bytes != whole:
            raise rejected("damaged", f"has {self._size_bytes} bytes and says {whole}")
        return header

    def read_payload(self, buffers: Iterable[memoryview], digest: str) -> None:
        """Fill buffers of `payload_bytes` in all. Raises SnapshotRejected when anything of the
        file is not as it was written under `digest`; the buffers then hold nothing of use."""
        num_bytes = 0
        for view in buffers:
            self._read(view)
            num_bytes += len(view)
        if num_bytes != self.header.payload_bytes:
            raise rejected("damaged", f"holds {self.header.payload_bytes} bytes, not {num_bytes}")
        written = bytearray(_DIGEST_BYTES)
        self._fill(memoryview(written))
        found = self._hash.digest()
        if found != written or digest != f"sha256:{found.hex()}":
            raise rejected("damaged", "is damaged: its bytes are not the ones that were written")

    def _read(self, view: memoryview) -> None:
        for start in range(0, len(view), CHUNK_BYTES):
            part = view[start : start + CHUNK_BYTES]
            self._fill(part)
            self._hash.update(part)

    def _fill(self, view: memoryview) -> None:
        at = 0
        while at < len(view):
            try:
                num_read = self._file.readinto(view[at:])
            except OSError as error:
                raise rejected("damaged", f"cannot be read: {_say(error)}") from error
            if not num_read:
                raise rejected("damaged", "is cut short")
            at += num_read


@contextlib.contextmanager
def open_snapshot(path: str, size_bytes: int) -> Iterator[SnapshotReader]:
    """A regular file, no link, of so many bytes. Raises SnapshotRejected."""
    with _open_file(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise rejected("damaged", "is no file")
        if status.st_size != size_bytes:
            raise rejected("damaged", f"has {status.st_size} bytes, not {size_bytes}")
        yield SnapshotReader(file, size_bytes)


def _open_file(path: str) -> FileIO:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return FileIO(os.open(path, flags), "rb")
    except FileNotFoundError as error:
        raise rejected("missing", "is not there") from error
    except (OSError, ValueError) as error:
        raise rejected("damaged", f"cannot be opened: {_say(error)}") from error


def _say(error: OSError | ValueError) -> str:
    """Without the path."""
    return error.strerror or "" if isinstance(error, OSError) else str(error)
