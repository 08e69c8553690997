"""Files, the collection of blobs and backups over both databases, with real jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from llmos.abi.files import FileFilter, FileRecord
from llmos.abi.ids import new_id
from llmos.abi.jobs import Idempotency, JobState, ResultRow
from llmos.errors import IdempotencyMismatch, NotFound
from llmos.storage.files import Files
from llmos.storage.housekeeping import HomeKeeper
from llmos.storage.manifest import read_manifest
from llmos.storage.restore import restore
from llmos.storage.uploads import Uploads
from llmos.telemetry.metrics import Metrics
from tests.contract.jobstore.world import ALICE, NOW, Scenario, World, job

Run = Callable[[Scenario], None]


class Home:
    """What boot puts around a store."""

    def __init__(self, world: World) -> None:
        self.uploads = Uploads(world.home, world.blobs, world.config)
        database = world.store.database
        self.files = Files(world.home, database, world.blobs, self.uploads, world.config)
        self.keeper = HomeKeeper(
            world.home,
            world.database,
            database,
            world.blobs,
            self.uploads,
            metrics=Metrics(),
            config=world.config,
        )

    async def add(self, data: bytes, key: Idempotency | None = None) -> FileRecord:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        await self.uploads.write("upl_1", "x", chunks())
        owner = (ALICE.tenant_id, ALICE.principal_id)
        now_ns = time.time_ns()
        record = FileRecord(new_id("file"), *owner, "数据 🐼.jsonl", "batch", "", 0, now_ns)
        return await self.files.add("upl_1", record, key)


def test_a_file_comes_and_goes(run: Run) -> None:
    async def scenario(world: World) -> None:
        home = Home(world)
        first, second = await home.add(b"1"), await home.add(b"2")
        assert await home.files.get(first.file_id) == first
        assert await home.files.page(FileFilter(tenant_id=ALICE.tenant_id)) == [second, first]
        assert await home.files.page(FileFilter(after=second.file_id, limit=1)) == [first]
        assert await home.files.remove(first.file_id) == first
        for ask in (home.files.get, home.files.blob, home.files.remove):
            with pytest.raises(NotFound):
                await ask(first.file_id)
        assert (await home.keeper.collect()).by_use["files"] == 1
        assert list(world.blobs.sizes()) == [second.digest]

    run(scenario)


def test_a_file_is_made_once_by_its_key(run: Run) -> None:
    async def scenario(world: World) -> None:
        home = Home(world)
        key = Idempotency("键 🔑", "sha256:1")
        made = await home.add(b"1", key)
        assert await home.add(b"1", key) == made
        with pytest.raises(IdempotencyMismatch):
            await home.add(b"1", Idempotency("键 🔑", "sha256:2"))
        assert len(await home.files.page(FileFilter())) == 1

    run(scenario)


def test_a_live_job_keeps_what_it_reads(run: Run) -> None:
    async def scenario(world: World) -> None:
        home = Home(world)
        made = await home.add(b"input")
        (record,) = await world.store.add([job(files={"in": made.file_id})])
        await home.files.remove(made.file_id)
        await home.keeper.collect()
        assert (await home.files.blob(made.file_id)).digest == made.digest
        attempt = await world.running(record)
        await home.keeper.collect()
        assert world.blobs.path(made.digest).exists()
        await world.end(attempt)
        with pytest.raises(NotFound):
            await home.files.blob(made.file_id)
        assert (await home.keeper.collect()).freed_bytes == len(b"input")

    run(scenario)


def test_the_newest_checkpoint_stays_until_its_job_succeeds(run: Run) -> None:
    async def scenario(world: World) -> None:
        home = Home(world)
        attempt = await world.running()
        kept = []
        for number in range(3):
            path = world.home.scratch / "state"
            path.write_bytes(b"state %d" % number)
            ref = await home.files.adopt(str(path))
            await home.keeper.collect()  # between the bytes and the row
            assert await world.store.checkpoint(attempt, ref)
            kept.append(ref.digest)
        report = await home.keeper.collect()
        assert list(world.blobs.sizes()) == [kept[-1]]
        assert report.by_use["checkpoints"] == report.blob_bytes
        await world.end(attempt, JobState.FAILED)
        await home.keeper.collect()
        assert list(world.blobs.sizes()) == [kept[-1]]
        retried = await world.store.retry(attempt.job_id, "again")
        await world.end(await world.running(retried))
        await home.keeper.collect()
        assert world.blobs.sizes() == {}

    run(scenario)


def test_sweeps_beside_jobs_that_finish_take_none_of_their_files(run: Run) -> None:
    async def scenario(world: World) -> None:
        home = Home(world)
        outputs = []

        async def finish(number: int) -> None:
            attempt = await world.running((await world.store.add([job()]))[0])
            row = ResultRow("output", "k", 0, b"line %d" % (number % 3))
            assert await world.store.put_results(attempt, [row])
            ended = await world.store.finish(
                attempt, JobState.SUCCEEDED, "done", exports={"output": "out.jsonl"}
            )
            assert ended is not None and ended.job.outputs is not None
            outputs.append(ended.job.outputs["files"]["output"])

        async def sweep() -> None:
            while not work.done():
                await home.keeper.collect()

        async def all_of_them() -> None:
            for number in range(12):
                await finish(number)

        work = asyncio.create_task(all_of_them())
        await asyncio.gather(work, sweep())
        assert (await home.keeper.collect()).num_missing == 0
        for file_id in outputs:
            assert (await home.files.blob(file_id)).size_bytes == len(b"line 0\n")

    run(scenario)


def test_a_backup_says_whether_jobs_are_in_it(run: Run) -> None:
    async def scenario(world: World) -> None:
        home = Home(world)
        made = await home.add(b"kept")
        await world.store.add([job()])
        target = world.home.path.with_name("backup")
        report = await home.keeper.back_up(str(target))
        manifest = read_manifest(target)
        is_shared = world.store.database.shared
        assert bool(report.notes) == is_shared
        assert manifest.counts["jobs"] == (0 if is_shared else 1)
        again = world.home.path.with_name("again")
        await asyncio.to_thread(restore, target, again)
        hexadecimal = made.digest.removeprefix("sha256:")
        blob = again / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal
        assert blob.read_bytes() == b"kept"

    run(scenario)


def test_what_expired_is_gone_and_its_bytes_with_the_next_sweep(run: Run) -> None:
    async def scenario(world: World) -> None:
        home = Home(world)

        async def chunks() -> AsyncIterator[bytes]:
            yield b"old"

        await home.uploads.write("upl_1", "x", chunks())
        record = FileRecord("file_old", "t", "p", "x", "batch", "", 0, NOW, expires_ns=NOW + 1)
        await home.files.add("upl_1", record)
        with pytest.raises(NotFound):
            await home.files.get("file_old")
        await home.keeper.collect()
        assert len(world.blobs.sizes()) == 1
        assert await world.store.retain(NOW + 1) >= 1
        await home.keeper.collect()
        assert world.blobs.sizes() == {}

    run(scenario)
