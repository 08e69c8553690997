from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from llmos.errors import (
    DiskFull,
    InvalidRequest,
    LLMOSError,
    NotFound,
    PayloadTooLarge,
    QuotaExceeded,
)
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.home import Home
from llmos.storage.uploads import Uploads


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def _uploads(home: Home, **limits: float) -> Uploads:
    config = StorageConfig(**({"min_free_bytes": 0} | limits))  # type: ignore[arg-type]
    return Uploads(home, Blobs(home, config), config)


def _nothing_left(home: Home) -> bool:
    return not list(home.uploads.iterdir()) and not list(home.scratch.iterdir())


def test_files_arrive_whole(opened: Home) -> None:
    uploads = _uploads(opened)
    big = b"x" * 3_000_000

    async def main() -> None:
        ref = await uploads.write("upl_1", "模型 🐼.json", _chunks(big, b"y"))
        assert ref.digest == f"sha256:{hashlib.sha256(big + b'y').hexdigest()}"
        assert ref.size_bytes == 3_000_001
        await uploads.write("upl_1", "b", _chunks(b"first"))
        await uploads.write("upl_1", "b", _chunks(b"second"))
        folder = uploads.take("upl_1")
        assert {p.name for p in folder.iterdir()} == {"模型 🐼.json", "b"}
        assert (folder / "b").read_bytes() == b"second"
        with pytest.raises(NotFound):
            uploads.take("upl_1")

    asyncio.run(main())
    assert list(opened.uploads.iterdir()) == []


BAD_NAMES = [
    "",
    "a/b/c",
    "../a",
    "/a",
    ".hidden",
    "a\0",
    "a\nb",
    "a\\b",
    "x" * 256,
    "好" * 86,
    "\ud800",
    "sub/",
    "sub/.x",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(opened: Home, name: str) -> None:
    with pytest.raises(InvalidRequest):
        asyncio.run(_uploads(opened).write("upl_1", name, _chunks(b"x")))
    assert _nothing_left(opened)


@pytest.mark.parametrize("upload_id", ["", "..", "a/b", "a" * 81, "é"])
def test_bad_ids_are_refused(opened: Home, upload_id: str) -> None:
    with pytest.raises(InvalidRequest):
        asyncio.run(_uploads(opened).write(upload_id, "a", _chunks(b"x")))
    asyncio.run(_uploads(opened).discard(upload_id))
    assert _nothing_left(opened)
    assert opened.uploads.is_dir()


@pytest.mark.parametrize(
    ("limits", "error"),
    [({"max_upload_bytes": 7}, PayloadTooLarge), ({"min_free_bytes": 1 << 62}, DiskFull)],
)
def test_a_refused_file_leaves_nothing(
    opened: Home, limits: dict[str, float], error: type[LLMOSError]
) -> None:
    with pytest.raises(error):
        asyncio.run(_uploads(opened, **limits).write("u", "a", _chunks(b"four", b"more")))
    assert _nothing_left(opened)


def test_bytes_and_files_count_over_the_upload(opened: Home) -> None:
    uploads = _uploads(opened, max_upload_bytes=10, max_upload_files=2)

    async def main() -> None:
        await uploads.write("u", "a", _chunks(b"12345678"))
        with pytest.raises(PayloadTooLarge):
            await uploads.write("u", "b", _chunks(b"123"))
        await uploads.write("u", "a", _chunks(b"123456789"))  # replaced, not added
        await uploads.write("u", "b", _chunks(b"1"))
        with pytest.raises(PayloadTooLarge, match="2 files"):
            await uploads.write("u", "c", _chunks(b""))
        assert sorted(p.name for p in uploads.take("u").iterdir()) == ["a", "b"]

    asyncio.run(main())


def test_a_client_that_leaves_leaves_nothing(opened: Home) -> None:
    uploads = _uploads(opened)

    async def main() -> None:
        started = asyncio.Event()

        async def stuck() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(uploads.write("u", "a", stuck()))
        await started.wait()
        with pytest.raises(InvalidRequest, match="still being written"):
            uploads.take("u")
        task.cancel()
        await asyncio.wait([task])
        with pytest.raises(NotFound):
            uploads.take("u")

    asyncio.run(main())
    assert _nothing_left(opened)


def test_discard_wins_over_a_write_under_way(opened: Home) -> None:
    uploads = _uploads(opened)

    async def main() -> None:
        async def discarding() -> AsyncIterator[bytes]:
            yield b"x"
            await uploads.discard("u")

        with pytest.raises(NotFound, match="discarded"):
            await uploads.write("u", "a", discarding())

    asyncio.run(main())
    assert _nothing_left(opened)


def test_idle_uploads_make_room(opened: Home) -> None:
    async def main(uploads: Uploads) -> None:
        await uploads.write("a", "x", _chunks(b""))
        await uploads.write("b", "x", _chunks(b""))

    asyncio.run(main(_uploads(opened, max_uploads=1, upload_idle_s=1e-9)))
    assert [p.name for p in opened.uploads.iterdir()] == ["b"]
    with pytest.raises(QuotaExceeded):
        asyncio.run(main(_uploads(opened, max_uploads=1)))
