from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, insert, update

from llmos.abi.blob import BlobRef
from llmos.abi.files import FileFilter, FileRecord
from llmos.abi.ids import new_id
from llmos.abi.jobs import Attempt, Idempotency
from llmos.errors import (
    DigestMismatch,
    DiskFull,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    StorageError,
)
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database
from llmos.storage.files import Files
from llmos.storage.home import Home
from llmos.storage.jobs import SqlJobStore
from llmos.storage.jobs.exports import Exporter
from llmos.storage.source import READ_BYTES, BlobReader
from llmos.storage.tables import job_files, jobs
from llmos.storage.uploads import Uploads
from llmos.telemetry import faults
from tests.unit.storage.conftest import SMALL, job_row

NOW = time.time_ns()


def _record(file_id: str = "", **fields: Any) -> FileRecord:
    made = FileRecord(
        file_id or new_id("file"), "ten_1", "prn_1", "数据 🐼.jsonl", "batch", "", 0, NOW
    )
    return msgspec.structs.replace(made, **fields)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


class World:
    def __init__(self, home: Home, database: Database) -> None:
        self.home, self.database = home, database
        self.blobs = Blobs(home, SMALL)
        self.uploads = Uploads(home, self.blobs, SMALL)
        self.files = Files(home, database, self.blobs, self.uploads, SMALL)
        self.reader = BlobReader(self.blobs)

    async def add(self, data: bytes = b"{}\n", **fields: Any) -> FileRecord:
        await self.uploads.write("upl_1", "x", _chunks(data))
        return await self.files.add("upl_1", _record(**fields))

    async def bytes_of(self, ref: BlobRef, *ends: int | None) -> bytes:
        return b"".join([chunk async for chunk in self.reader.read(ref, *ends)])

    def left(self) -> list[str]:
        return [p.name for f in (self.home.scratch, self.home.uploads) for p in f.iterdir()]


@pytest.fixture
def world(opened: Home, database: Database) -> World:
    return World(opened, database)


def _job(connection: Connection, file: FileRecord, job_id: str = "job_1") -> None:
    connection.execute(insert(jobs).values(job_row(job_id=job_id, state="running")))
    connection.execute(
        insert(job_files).values(
            job_id=job_id,
            name="in",
            file_id=file.file_id,
            digest=file.digest,
            size_bytes=file.size_bytes,
        )
    )


def test_a_file_is_its_upload(world: World) -> None:
    async def main() -> None:
        data = "第一行 🐼\n".encode() * 1000
        made = await world.add(data)
        assert made.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert made.size_bytes == len(data)
        assert await world.files.get(made.file_id) == made
        assert await world.bytes_of(await world.files.blob(made.file_id)) == data
        with pytest.raises(NotFound):
            await world.files.add("upl_1", _record())

    asyncio.run(main())
    assert world.left() == []


def test_equal_files_share_their_bytes(world: World) -> None:
    async def main() -> None:
        first, second = await world.add(b"same"), await world.add(b"same")
        assert first.file_id != second.file_id
        assert world.blobs.ledger().num_blobs == 1
        await world.files.remove(first.file_id)
        assert await world.bytes_of(await world.files.blob(second.file_id)) == b"same"
        with pytest.raises(NotFound):
            await world.files.blob(first.file_id)
        with pytest.raises(NotFound):
            await world.files.remove(first.file_id)

    asyncio.run(main())


def test_a_file_is_one_upload(world: World) -> None:
    async def main() -> None:
        await world.uploads.write("upl_1", "a", _chunks(b"1"))
        await world.uploads.write("upl_1", "b", _chunks(b"2"))
        with pytest.raises(InvalidRequest, match="not of 2"):
            await world.files.add("upl_1", _record())
        assert await world.files.page(FileFilter()) == []

    asyncio.run(main())
    assert world.left() == []
    assert world.blobs.ledger().num_blobs == 0


def test_an_empty_file(world: World) -> None:
    async def main() -> None:
        made = await world.add(b"")
        assert made.size_bytes == 0
        assert await world.bytes_of(await world.files.blob(made.file_id)) == b""

    asyncio.run(main())


def test_pages(world: World) -> None:
    async def main() -> None:
        ids = [f"file_{number}" for number in range(5)]
        for file_id in ids:
            await world.add(file_id=file_id)
        await world.add(file_id="file_x", tenant_id="ten_2", purpose="fine-tune")

        async def page(**query: Any) -> list[str]:
            found = await world.files.page(FileFilter(**({"tenant_id": "ten_1"} | query)))
            return [file.file_id for file in found]

        assert await page() == ids[::-1]
        assert await page(newest_first=False, limit=2) == ids[:2]
        assert await page(newest_first=False, after=ids[1]) == ids[2:]
        assert await page(after=ids[3], limit=2) == [ids[2], ids[1]]
        assert await page(purpose="fine-tune") == []
        assert await page(tenant_id=None, purpose="fine-tune") == ["file_x"]
        with pytest.raises(InvalidRequest):
            await page(limit=0)

    asyncio.run(main())


def test_an_expired_file_is_gone(world: World) -> None:
    async def main() -> None:
        old = await world.add(expires_ns=NOW - 1)
        young = await world.add(expires_ns=NOW + 3600 * 10**9)
        for ask in (world.files.get, world.files.remove, world.files.blob):
            with pytest.raises(NotFound):
                await ask(old.file_id)
        assert await world.files.page(FileFilter()) == [young]

    asyncio.run(main())


@pytest.mark.parametrize("how", ["removed", "expired"])
def test_a_job_keeps_what_it_reads_until_it_ends(world: World, how: str) -> None:
    async def main() -> None:
        made = await world.add(b"input", expires_ns=NOW - 1 if how == "expired" else None)
        await world.database.write(lambda c: _job(c, made))
        if how == "removed":
            await world.files.remove(made.file_id)
        with pytest.raises(NotFound):
            await world.files.get(made.file_id)
        assert await world.bytes_of(await world.files.blob(made.file_id)) == b"input"
        await world.database.write(lambda c: c.execute(update(jobs).values(ended_ns=NOW)))
        with pytest.raises(NotFound):
            await world.files.blob(made.file_id)

    asyncio.run(main())


def test_a_file_is_made_once_by_its_key(world: World) -> None:
    async def main() -> None:
        key = Idempotency("k", "sha256:1")

        async def add(data: bytes, given: Idempotency) -> FileRecord:
            await world.uploads.write("upl_1", "x", _chunks(data))
            return await world.files.add("upl_1", _record(), given)

        first = await add(b"a", key)
        assert await add(b"a", key) == first
        with pytest.raises(IdempotencyMismatch):
            await add(b"b", Idempotency("k", "sha256:2"))
        assert await world.files.page(FileFilter()) == [first]
        await world.files.remove(first.file_id)
        with pytest.raises(NotFound, match="is gone"):
            await add(b"a", key)

    asyncio.run(main())


def test_a_row_that_cannot_be_written_leaves_no_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: object) -> None:
        raise DiskFull("the database cannot grow")

    async def main() -> None:
        await world.uploads.write("upl_1", "x", _chunks(b"1"))
        monkeypatch.setattr(world.database, "write", refuse)
        with pytest.raises(DiskFull):
            await world.files.add("upl_1", _record())
        assert world.blobs.held() == set()
        assert world.blobs.collect(set()) == 1

    asyncio.run(main())
    assert world.left() == []


def test_what_was_begun_is_finished_when_the_caller_leaves(world: World) -> None:
    async def main() -> None:
        await world.uploads.write("upl_1", "x", _chunks(b"1"))
        record = _record()
        adding = asyncio.create_task(world.files.add("upl_1", record))
        await asyncio.sleep(0)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert (await world.files.get(record.file_id)).size_bytes == 1

    asyncio.run(main())


def test_ranges(world: World) -> None:
    async def main() -> None:
        data = os.urandom(2 * READ_BYTES + 7)
        ref = await world.files.blob((await world.add(data)).file_id)
        for start, end in [
            (0, 0),
            (0, 1),
            (5, READ_BYTES + 5),
            (READ_BYTES, None),
            (len(data), None),
        ]:
            assert await world.bytes_of(ref, start, end) == data[start:end]
        for start, end in [(-1, 2), (3, 2), (0, len(data) + 1)]:
            with pytest.raises(InvalidRequest):
                await world.bytes_of(ref, start, end)

    asyncio.run(main())


def test_a_reader_that_began_can_finish(world: World) -> None:
    async def main() -> None:
        data = os.urandom(READ_BYTES + 1)
        made = await world.add(data)
        chunks = world.reader.read(await world.files.blob(made.file_id))
        first = await anext(aiter(chunks))
        await world.files.remove(made.file_id)
        assert world.blobs.collect(set()) == len(data)
        assert first + b"".join([chunk async for chunk in chunks]) == data

    asyncio.run(main())


def test_bytes_that_are_lost_or_short_are_told(world: World) -> None:
    async def main() -> None:
        made = await world.add(b"whole")
        ref = await world.files.blob(made.file_id)
        path = world.blobs.path(made.digest)
        path.chmod(0o600)
        path.write_bytes(b"who")
        with pytest.raises(StorageError, match="3 of 5 bytes"):
            await world.bytes_of(ref)
        path.unlink()
        with pytest.raises(NotFound):
            await world.bytes_of(ref)
        with pytest.raises(StorageError, match="gone from the store"):
            await world.files.blob(made.file_id)
        with pytest.raises(DigestMismatch):
            await world.bytes_of(BlobRef("../../etc/passwd", 1, "/etc/passwd"))

    asyncio.run(main())


def test_readers_close_what_they_open(world: World) -> None:
    def num_open() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    async def main() -> None:
        ref = await world.files.blob((await world.add(b"x" * (READ_BYTES + 1))).file_id)
        before = num_open()
        chunks = world.reader.read(ref)
        await anext(aiter(chunks))
        await chunks.aclose()  # type: ignore[attr-defined]
        task = asyncio.create_task(world.bytes_of(ref))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert num_open() == before

    asyncio.run(main())


def test_a_tenants_files_may_be_bounded(world: World) -> None:
    """What is refused leaves nothing; other tenants, and room that is made, are not affected."""
    config = SMALL.model_copy(update={"max_tenant_file_bytes": 10})
    world.files = Files(world.home, world.database, world.blobs, world.uploads, config)

    async def main() -> None:
        first = await world.add(b"123456")
        await world.add(b"1234")
        with pytest.raises(QuotaExceeded):
            await world.add(b"1")
        await world.add(b"1234567890", tenant_id="ten_2")
        assert len(await world.files.page(FileFilter(tenant_id="ten_1"))) == 2
        assert not world.left()
        await world.files.remove(first.file_id)
        await world.add(b"654321")

    asyncio.run(main())


def test_a_checkpoint_is_moved_in_and_kept_for_a_time(world: World) -> None:
    async def main() -> None:
        path = world.home.scratch / "job_1" / "state"
        path.parent.mkdir()
        path.write_bytes(b"weights")
        ref = await world.files.adopt(str(path))
        assert not path.exists()
        assert await world.bytes_of(ref) == b"weights"
        assert world.blobs.collect(set()) == 0
        hasty = Files(
            world.home,
            world.database,
            world.blobs,
            world.uploads,
            StorageConfig(adopted_grace_s=1e-9),
        )
        path.write_bytes(b"others")
        await hasty.adopt(str(path))
        assert world.blobs.collect(set()) == len(b"others")

    asyncio.run(main())


def test_a_checkpoint_that_is_on_record_or_too_late_is_not_held_any_more(world: World) -> None:
    store = SqlJobStore(
        world.database, Exporter(world.home.scratch, world.blobs), world.blobs, SMALL
    )

    async def main() -> None:
        path = world.home.scratch / "state"
        path.write_bytes(b"late")
        ref = await world.files.adopt(str(path))
        assert world.blobs.held() == {ref.digest}
        assert not await store.checkpoint(Attempt("job_gone", 1, 1), ref)
        assert world.blobs.held() == set()

    asyncio.run(main())


def test_a_checkpoint_lies_in_its_workers_own_folder(world: World) -> None:
    """Neither another worker's file is taken, nor one of a folder outside of scratch."""
    own, other = world.home.scratch / "wrk_1", world.home.scratch / "wrk_10"
    for folder in (own, other):
        folder.mkdir()
        (folder / "state").write_bytes(folder.name.encode())

    async def main() -> None:
        for path, folder in (
            (other / "state", own),
            (own / ".." / "wrk_10" / "state", own),
            (world.home.path / "token", world.home.path),
        ):
            with pytest.raises(StorageError):
                await world.files.adopt(str(path), str(folder))
        ref = await world.files.adopt(str(own / "state"), str(own))
        assert await world.bytes_of(ref) == b"wrk_1"

    asyncio.run(main())
    assert (other / "state").read_bytes() == b"wrk_10"


def test_only_files_of_scratch_are_adopted(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"s")
    link = world.home.scratch / "link"
    link.symlink_to(outside)
    folder = world.home.scratch / "folder"
    folder.mkdir()
    fifo = world.home.scratch / "fifo"
    os.mkfifo(fifo)
    names = [
        outside,
        link,
        folder,
        fifo,
        world.home.scratch / "none",
        world.home.scratch / "../token",
    ]

    async def main() -> None:
        for name in [*map(str, names), "", "relative", "a\0b"]:
            with pytest.raises(StorageError):
                await world.files.adopt(name)

    asyncio.run(main())
    assert outside.read_bytes() == b"s"
    assert world.blobs.ledger().num_blobs == 0


@pytest.mark.parametrize("point", ["blobs.seal.synced", "blobs.seal.renamed", "files.add.stored"])
def test_an_error_at_any_point_leaves_nothing_wanted(world: World, point: str) -> None:
    def fail(name: str) -> None:
        if name == point:
            raise OSError(28, "No space left on device")

    async def main() -> None:
        await world.uploads.write("upl_1", "x", _chunks(b"1"))
        with faults.installed(fail), pytest.raises((DiskFull, OSError)):
            await world.files.add("upl_1", _record())
        assert await world.files.page(FileFilter()) == []
        world.blobs.collect(set())
        assert world.blobs.ledger().num_blobs == 0
        assert (await world.add(b"1")).size_bytes == 1

    asyncio.run(main())
    assert world.left() == []
