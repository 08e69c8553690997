"""Uploads: private folders of named files, on their way to become a model, a File or nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from llmos.abi.blob import BlobRef
from llmos.errors import InvalidRequest, NotFound, PayloadTooLarge, QuotaExceeded
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.disk import drop_volatile, mapped, whole
from llmos.storage.home import Home
from llmos.storage.names import check_filename
from llmos.telemetry.faults import reached

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,79}")
_BUFFER_BYTES = 1 << 20


class _Upload:
    """What is known of one open upload. `files` are the finished ones, by name."""

    def __init__(self) -> None:
        self.files: dict[str, BlobRef] = {}
        self.writing_bytes = 0
        self.num_writing = 0
        self.touched_s = time.monotonic()

    def total_bytes(self, without: str) -> int:
        finished = sum(ref.size_bytes for name, ref in self.files.items() if name != without)
        return finished + self.writing_bytes


class Uploads:
    """The BlobSink. A write that is refused, fails or is cancelled leaves nothing of itself."""

    def __init__(self, home: Home, blobs: Blobs, config: StorageConfig | None = None) -> None:
        self._root = home.uploads
        self._scratch = home.scratch
        self._blobs = blobs
        self._config = config or StorageConfig()
        self._open: dict[str, _Upload] = {}

    async def write(self, upload_id: str, filename: str, chunks: AsyncIterator[bytes]) -> BlobRef:
        """Store one file; a second of the same name replaces it. Raises as `abi.BlobSink` says."""
        check_filename(filename, folders=1)
        upload = await self._enter(upload_id, filename)
        temporary = self._scratch / f"upload-{uuid.uuid4().hex}"
        try:
            digest, size_bytes = await self._receive(upload, filename, temporary, chunks)
            if self._open.get(upload_id) is not upload:
                raise NotFound(f"upload {upload_id} was discarded")
            path = self._root / upload_id / filename
            with mapped(f"storing {filename}"):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                temporary.replace(path)
            upload.files[filename] = BlobRef(digest, size_bytes, str(path))
            return upload.files[filename]
        finally:
            drop_volatile(temporary)
            upload.num_writing -= 1
            upload.touched_s = time.monotonic()
            if not upload.files and not upload.num_writing:
                await self.discard(upload_id)

    async def discard(self, upload_id: str) -> None:
        """Drop an upload and its bytes. Idempotent."""
        if _ID.fullmatch(upload_id):
            self._open.pop(upload_id, None)
            await asyncio.to_thread(drop_volatile, self._root / upload_id)

    def files_of(self, upload_id: str) -> dict[str, BlobRef]:
        """Digest and size of every finished file, by name; empty for an unknown upload."""
        upload = self._open.get(upload_id)
        return dict(upload.files) if upload is not None else {}

    async def drop_idle(self) -> int:
        """Discard uploads that nobody has touched for long; how many."""
        oldest_s = time.monotonic() - self._config.upload_idle_s
        idle = [
            upload_id
            for upload_id, upload in self._open.items()
            if upload.touched_s < oldest_s and not upload.num_writing
        ]
        for upload_id in idle:
            await self.discard(upload_id)
        return len(idle)

    def take(self, upload_id: str) -> Path:
        """The folder of a finished upload, now the caller's, who must remove it. Raises NotFound,
        and InvalidRequest while a file is still being written.
        """
        upload = self._open.get(upload_id)
        if upload is None:
            raise NotFound(f"no upload {upload_id[:80]!r}", param="source")
        if upload.num_writing:
            raise InvalidRequest(f"upload {upload_id} is still being written", param="source")
        taken = self._scratch / f"taken-{uuid.uuid4().hex}"
        with mapped(f"taking upload {upload_id}"):
            reached("uploads.take.before_move")
            (self._root / upload_id).replace(taken)
        del self._open[upload_id]
        return taken

    async def _enter(self, upload_id: str, filename: str) -> _Upload:
        if not _ID.fullmatch(upload_id):
            raise InvalidRequest("an upload id has letters, digits, - and _", param="upload_id")
        upload = self._open.get(upload_id)
        if upload is None:
            await self._make_room()
            upload = self._open.setdefault(upload_id, _Upload())
        num_files = len(upload.files.keys() | {filename}) + upload.num_writing
        if num_files > self._config.max_upload_files:
            raise PayloadTooLarge(
                f"an upload holds at most {self._config.max_upload_files} files", param="filename"
            )
        upload.num_writing += 1
        return upload

    async def _make_room(self) -> None:
        await self.drop_idle()
        if len(self._open) >= self._config.max_uploads:
            raise QuotaExceeded(f"{len(self._open)} uploads are open already", retry_after_s=10.0)

    async def _receive(
        self, upload: _Upload, filename: str, path: Path, chunks: AsyncIterator[bytes]
    ) -> tuple[str, int]:
        digest = hashlib.sha256()
        buffer = bytearray()
        written = 0
        with mapped(f"receiving {filename}"):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async for chunk in chunks:
                upload.writing_bytes += len(chunk)
                written += len(chunk)
                self._check_size(upload, filename)
                buffer += chunk
                if len(buffer) >= _BUFFER_BYTES:
                    await whole(self._flush, fd, buffer, digest, filename)
            await whole(self._flush, fd, buffer, digest, filename)
        finally:
            upload.writing_bytes -= written
            os.close(fd)
        reached("uploads.write.received")
        return f"sha256:{digest.hexdigest()}", written

    def _check_size(self, upload: _Upload, filename: str) -> None:
        if upload.total_bytes(without=filename) > self._config.max_upload_bytes:
            raise PayloadTooLarge(
                f"an upload holds at most {self._config.max_upload_bytes} bytes", param=filename
            )

    def _flush(self, fd: int, buffer: bytearray, digest: hashlib._Hash, filename: str) -> None:
        self._blobs.require_free(len(buffer))
        digest.update(buffer)
        with mapped(f"receiving {filename}"):
            view = memoryview(buffer)
            while view:
                view = view[os.write(fd, view) :]
            view.release()
        buffer.clear()
