"""A disk on which nothing can be removed: the error that is told is the first one."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmos.errors import StorageError
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.home import Home
from llmos.storage.uploads import Uploads


async def _broken_off() -> AsyncIterator[bytes]:
    yield b"some"
    raise StorageError("the first error")


def test_an_upload_that_cannot_be_cleaned_up_counts_no_longer(
    opened: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    config = StorageConfig(min_free_bytes=0, max_uploads=1)
    uploads = Uploads(opened, Blobs(opened, config), config)

    async def scenario() -> None:
        for number in range(3):
            with pytest.raises(StorageError, match="the first error"):
                await uploads.write(f"upl-{number}", "file", _broken_off())
            await uploads.discard(f"upl-{number}")

    monkeypatch.setattr(Path, "unlink", refuse)
    asyncio.run(scenario())
