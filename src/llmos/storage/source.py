"""Bytes of blobs on their way out. Implements `abi.BlobSource`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from llmos.abi.blob import BlobRef
from llmos.errors import InvalidRequest, NotFound, StorageError
from llmos.storage.blobs import Blobs
from llmos.storage.disk import mapped, whole

READ_BYTES = 1 << 18
"""At most so many of a blob are in memory at once, whatever its size."""


class BlobReader:
    """Reads in threads, by the digest: where a reference says a blob lies is not believed.

    Once the first chunk was given, the bytes can be read to the end even if the blob is collected.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def read(
        self, ref: BlobRef, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """See `abi.BlobSource`. Raises InvalidRequest for a range outside the blob."""
        stop = ref.size_bytes if end is None else end
        if not 0 <= start <= stop <= ref.size_bytes:
            raise InvalidRequest(f"bytes {start} to {stop} of {ref.size_bytes}", param="range")
        opened: list[int] = []  # filled in the thread, so that nothing is lost when cancelled
        try:
            await whole(self._open, ref, opened)
            while start < stop:
                chunk = await whole(_read, opened[0], min(READ_BYTES, stop - start), start)
                if not chunk:
                    raise StorageError(f"blob {ref.digest} ends at byte {start}")
                start += len(chunk)
                yield chunk
        finally:
            for fd in opened:
                os.close(fd)

    def _open(self, ref: BlobRef, opened: list[int]) -> None:
        path = self._blobs.path(ref.digest)
        with mapped(f"reading blob {ref.digest}"):
            try:
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
            except FileNotFoundError:
                raise NotFound(f"blob {ref.digest} is gone") from None
            size_bytes = os.fstat(opened[0]).st_size
        if size_bytes != ref.size_bytes:
            raise StorageError(f"blob {ref.digest} has {size_bytes} of {ref.size_bytes} bytes")


def _read(fd: int, num_bytes: int, start: int) -> bytes:
    with mapped("reading a blob"):
        return os.pread(fd, num_bytes, start)
