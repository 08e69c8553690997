"""Bulk bytes go out of band: messages carry references, never the bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec


class BlobRef(msgspec.Struct, frozen=True):
    """Content-addressed bytes. `digest` is `sha256:` and 64 hexadecimal digits."""

    digest: str
    size_bytes: int
    path: str | None = None


class SnapshotRef(msgspec.Struct, frozen=True):
    """A suspended request's exact state: a file of `size_bytes`, all of it under `digest`.

    Readable only with equal weights, dtype, driver, thread count and owner. Whoever holds the
    reference may move the file and say so in `path`, and deletes it in the end.
    """

    snapshot_id: str
    path: str
    size_bytes: int
    digest: str
    weights_digest: str
    dtype: str
    driver: str
    num_threads: int
    owner: str


class BlobSink(Protocol):
    """Where `api` puts uploaded bytes: an upload is a folder of named files, not yet a model."""

    async def write(self, upload_id: str, filename: str, chunks: AsyncIterator[bytes]) -> BlobRef:
        """Store one file of an upload. Raises InvalidRequest (name), PayloadTooLarge, DiskFull."""
        ...

    async def discard(self, upload_id: str) -> None:
        """Drop an upload and its bytes. Idempotent."""
        ...
