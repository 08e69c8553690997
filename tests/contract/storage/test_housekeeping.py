from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select

from llmos.abi.files import FileRecord
from llmos.abi.ids import new_id
from llmos.errors import DiskFull, StorageError
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.files import Files
from llmos.storage.home import Home
from llmos.storage.housekeeping import HomeKeeper
from llmos.storage.tables import blobs, files, job_files, jobs, model_files, models
from llmos.storage.uploads import Uploads
from llmos.telemetry import faults
from llmos.telemetry.metrics import Metrics
from tests.unit.storage.conftest import SMALL, job_row


class World:
    """A home with a keeper, and ways to refer to blobs."""

    def __init__(self, home: Home, database: Database, config: StorageConfig = SMALL) -> None:
        self.home, self.database = home, database
        self.metrics = Metrics()
        self.blobs = Blobs(home, config)
        self.uploads = Uploads(home, self.blobs, config)
        self.files = Files(home, database, self.blobs, self.uploads, config)
        self.keeper = self.made_keeper(database, config)

    def made_keeper(self, jobs_database: Any, config: StorageConfig = SMALL) -> HomeKeeper:
        return HomeKeeper(
            self.home,
            self.database,
            jobs_database,
            self.blobs,
            self.uploads,
            metrics=self.metrics,
            config=config,
        )

    def put(self, data: bytes) -> str:
        """A blob that nothing refers to and nobody holds."""
        path = self.home.scratch / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        with self.blobs.hold() as hold:
            return self.blobs.adopt(path, hold).digest

    def refer(self, use: str, digest: str, number: int = 0) -> None:
        self.database.write_now(lambda c: REFER[use](c, digest, number))

    def has(self, digest: str) -> bool:
        return self.blobs.path(digest).exists()

    async def add_file(self, data: bytes, upload_id: str = "upl_1") -> FileRecord:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        await self.uploads.write(upload_id, "x", chunks())
        record = FileRecord(new_id("file"), "ten_1", "prn_1", "x", "batch", "", 0, time.time_ns())
        return await self.files.add(upload_id, record)

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


def _model(connection: Connection, digest: str, number: int) -> None:
    model_id = f"mdl_{number}"
    connection.execute(insert(blobs).values(digest=digest, size_bytes=1, created_ns=1, epoch=1))
    connection.execute(
        insert(models).values(
            model_id=model_id,
            tenant_id="default",
            name=f"m{number}",
            version=1,
            digest=digest,
            record={},
            created_ns=1,
            epoch=1,
        )
    )
    connection.execute(insert(model_files).values(model_id=model_id, name="w", digest=digest))


def _file(connection: Connection, digest: str, number: int) -> None:
    connection.execute(
        insert(files).values(
            file_id=f"file_{number}",
            tenant_id="t",
            principal_id="p",
            filename="x",
            purpose="batch",
            digest=digest,
            size_bytes=1,
            created_ns=1,
            epoch=1,
        )
    )


def _job(connection: Connection, number: int, state: str, **fields: Any) -> None:
    ended_ns = None if state in ("running", "pending") else 1
    row = job_row(job_id=f"job_{number}", state=state, ended_ns=ended_ns, **fields)
    connection.execute(insert(jobs).values(row))


def _input(state: str) -> Any:
    def refer(connection: Connection, digest: str, number: int) -> None:
        _job(connection, number, state)
        connection.execute(
            insert(job_files).values(
                job_id=f"job_{number}", name="in", file_id="file_gone", digest=digest, size_bytes=1
            )
        )

    return refer


def _checkpoint(state: str) -> Any:
    return lambda c, digest, number: _job(c, number, state, checkpoint_digest=digest)


REFER: dict[str, Any] = {
    "model": _model,
    "file": _file,
    "input of a live job": _input("running"),
    "checkpoint of a live job": _checkpoint("pending"),
    "checkpoint of a dead job": _checkpoint("dead"),
    # these do not keep anything
    "input of an ended job": _input("failed"),
    "checkpoint of a job that succeeded": _checkpoint("succeeded"),
    "nothing": lambda *_: None,
}
WANTED = frozenset(list(REFER)[:5])
HELD = "held"


@pytest.fixture
def world(opened: Home, database: Database) -> World:
    return World(opened, database)


@pytest.mark.parametrize("use", REFER)
def test_what_is_referred_to_stays_and_nothing_else(world: World, use: str) -> None:
    digest = world.put(b"bytes")
    world.refer(use, digest)
    report = asyncio.run(world.keeper.collect())
    assert world.has(digest) == (use in WANTED)
    assert report.freed_bytes == (0 if use in WANTED else 5)
    assert report.unused_bytes == 0
    assert sum(report.by_use.values()) == report.blob_bytes == 5 - report.freed_bytes


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.sets(st.sampled_from([*REFER, HELD]), max_size=3).map(frozenset), min_size=1, max_size=12
    )
)
def test_nothing_wanted_goes_and_everything_else_does(
    world: World, uses: list[frozenset[str]]
) -> None:
    _clear(world)
    digests = [world.put(b"%d" % number) for number in range(len(uses))]
    with world.blobs.hold() as hold:
        for number, (digest, of_blob) in enumerate(zip(digests, uses, strict=True)):
            for offset, use in enumerate(sorted(of_blob - {HELD})):
                world.refer(use, digest, 10 * number + offset)
            if HELD in of_blob:
                world.blobs.keep([digest], hold)
        asyncio.run(world.keeper.collect())
        found = [world.has(digest) for digest in digests]
        assert found == [bool(of_blob & (WANTED | {HELD})) for of_blob in uses]
    report = asyncio.run(world.keeper.collect())
    assert [world.has(digest) for digest in digests] == [bool(u & WANTED) for u in uses]
    assert report.num_missing == 0
    assert world.database.write_now(lambda c: set(c.execute(select(blobs.c.digest)).scalars())) == {
        digest for digest, of_blob in zip(digests, uses, strict=True) if "model" in of_blob
    }


def _clear(world: World) -> None:
    for table in (job_files, jobs, files, model_files, models):
        world.database.write_now(lambda c, table=table: c.execute(delete(table)))  # type: ignore[misc]
    asyncio.run(world.keeper.collect())


def test_a_sweep_beside_files_that_come_and_go(world: World) -> None:
    """Equal bytes again and again: the sweep must never take what a new row just referred to."""

    async def main() -> None:
        async def come_and_go(number: int) -> None:
            for _ in range(8):
                made = await world.add_file(b"%d" % (number % 2), f"upl_{number}")
                assert (await world.files.blob(made.file_id)).size_bytes == 1
                await world.files.remove(made.file_id)

        async def sweep() -> None:
            while not all(task.done() for task in workers):
                await world.keeper.collect()

        workers = [asyncio.create_task(come_and_go(number)) for number in range(4)]
        await asyncio.gather(sweep(), *workers)
        assert (await world.keeper.collect()).num_blobs == 0

    asyncio.run(main())


def test_what_was_held_when_the_sweep_began_is_spared(world: World) -> None:
    """The hold ends, with the row written, after the sweep has read what is wanted."""
    digest = world.put(b"late")

    async def main() -> None:
        with world.blobs.sweep() as sweep:
            with world.blobs.hold() as hold:
                wanted: set[str] = set()  # read before the row was there
                world.blobs.keep([digest], hold)
            world.refer("file", digest)
            assert sweep.delete_all_but(wanted) == 0

    asyncio.run(main())
    assert world.has(digest)


def test_nothing_is_deleted_when_it_is_not_known_what_is_wanted(world: World) -> None:
    class Unreachable:
        epoch = 1

        async def read(self, _: object) -> None:
            raise StorageError("no route to the jobs' database")

        write = read

    digest = world.put(b"x")
    with pytest.raises(StorageError, match="no route"):
        asyncio.run(world.made_keeper(Unreachable()).collect())
    assert world.has(digest)


def test_jobs_and_files_elsewhere(world: World, tmp_path: Path) -> None:
    elsewhere = open_database(tmp_path, SMALL)
    try:
        model, file, lost = (world.put(b"%d" % number) for number in range(3))
        world.refer("model", model)
        elsewhere.write_now(lambda c: _file(c, file, 0))
        world.refer("file", lost)  # the home's own table of files is not in use
        report = asyncio.run(world.made_keeper(elsewhere).collect())
        assert [world.has(digest) for digest in (model, file, lost)] == [True, True, False]
        assert report.by_use == {
            "models": 1,
            "files": 1,
            "inputs": 0,
            "checkpoints": 0,
            "held": 0,
        }
    finally:
        elsewhere.close()


def test_lost_bytes_are_reported(world: World, caplog: pytest.LogCaptureFixture) -> None:
    digest = world.put(b"x")
    world.refer("file", digest)
    world.blobs.path(digest).unlink()
    for _ in range(2):
        report = asyncio.run(world.keeper.collect())
        assert (report.num_missing, report.missing) == (1, [digest])
    assert caplog.text.count(digest) == 1
    assert world.metric("llmos:missing_blobs") == 1


def test_what_is_removed_and_swept_meanwhile_is_not_lost(world: World) -> None:
    async def main() -> None:
        made = await world.add_file(b"x")
        stale = {"files": {made.digest}}  # read before the file was removed
        await world.files.remove(made.file_id)
        await world.keeper.collect()
        assert (await world.keeper._report(stale)).num_missing == 0

    asyncio.run(main())


def test_the_ledger(world: World) -> None:
    async def main() -> None:
        shared = world.put(b"12345")
        world.refer("model", shared, 1)
        world.refer("file", shared, 1)
        world.refer("file", world.put(b"123"), 2)
        unused = world.put(b"1")
        (world.home.snapshots / "snp_1.snap").write_bytes(b"123456")
        (world.home.snapshots / "link").symlink_to(world.home.path / "token")
        with world.blobs.hold() as hold:
            world.blobs.keep([world.put(b"12")], hold)
            report = await world.keeper.disk()
        assert report.by_use == {
            "models": 5,
            "files": 3,
            "inputs": 0,
            "checkpoints": 0,
            "held": 2,
        }
        assert (report.num_blobs, report.blob_bytes, report.unused_bytes) == (4, 11, 1)
        assert report.snapshot_bytes == 6
        assert report.database_bytes > 0 and report.total_bytes > report.free_bytes > 0
        assert world.has(unused)

    asyncio.run(main())
    assert world.metric("llmos:blob_bytes") == 11
    assert (world.metric("llmos:disk_free_bytes") or 0) > 0


def test_foreign_files_in_the_store_are_left_alone(world: World) -> None:
    stray = world.home.blobs / "ab" / "notes.txt"
    stray.parent.mkdir()
    stray.write_text("mine")
    assert asyncio.run(world.keeper.collect()).num_blobs == 0
    assert stray.exists()


def test_the_keeper_sweeps_now_and_then(opened: Home, database: Database) -> None:
    config = StorageConfig(
        min_free_bytes=0,
        collect_interval_s=0.01,
        collect_check_s=0.01,
        collect_retry_s=0.001,
        upload_idle_s=1e-9,
    )
    world = World(opened, database, config)

    async def main() -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"forgotten"

        digest = world.put(b"1")
        await world.uploads.write("upl_1", "x", chunks())
        clean = asyncio.Event()

        def look(point: str) -> None:
            left = world.has(digest) or any(opened.uploads.iterdir())
            if point == "housekeeping.collect.swept" and not left:
                clean.set()

        with faults.installed(look):
            running = asyncio.create_task(world.keeper.run())
            async with asyncio.timeout(10):
                await clean.wait()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())


@pytest.mark.parametrize(
    "point",
    ["housekeeping.collect.marked", "blobs.sweep.before_delete", "housekeeping.collect.swept"],
)
def test_a_sweep_that_dies_is_finished_by_the_next(world: World, point: str) -> None:
    class Died(BaseException):
        pass

    def die(name: str) -> None:
        if name == point:
            raise Died

    wanted, unwanted = world.put(b"wanted"), world.put(b"unwanted")
    world.refer("file", wanted)
    world.refer("model", gone := world.put(b"gone"))
    world.database.write_now(lambda c: [c.execute(delete(t)) for t in (model_files, models)])
    with faults.installed(die), pytest.raises(Died):
        asyncio.run(world.keeper.collect())
    again = World(world.home, world.database)
    asyncio.run(again.keeper.collect())
    assert [world.has(digest) for digest in (wanted, unwanted, gone)] == [True, False, False]
    assert world.database.write_now(lambda c: c.execute(select(blobs)).all()) == []


def test_a_hold_forgets_what_nobody_holds(world: World) -> None:
    digest = world.put(os.urandom(8))
    with world.blobs.hold() as first, world.blobs.hold() as second:
        world.blobs.keep([digest], first)
        world.blobs.keep([digest], second)
        assert world.blobs.held() == {digest}
    assert world.blobs.held() == set()


@pytest.mark.parametrize("why", ["much was stored", "there was no room"])
def test_the_keeper_sweeps_sooner_when_the_disk_fills(
    opened: Home, database: Database, why: str
) -> None:
    config = StorageConfig(
        min_free_bytes=0, collect_check_s=0.01, collect_retry_s=0.001, collect_after_bytes=100
    )
    world = World(opened, database, config)

    async def main() -> None:
        sweeps: asyncio.Queue[str] = asyncio.Queue()

        def look(point: str) -> None:
            if point == "housekeeping.collect.swept":
                sweeps.put_nowait(point)

        with faults.installed(look):
            running = asyncio.create_task(world.keeper.run())
            await sweeps.get()
            world.put(b"x" * (99 if why == "there was no room" else 100))
            if why == "there was no room":
                with pytest.raises(DiskFull):
                    world.blobs.require_free(1 << 62)
            async with asyncio.timeout(10):
                await sweeps.get()
            assert sweeps.empty()
        running.cancel()
        await asyncio.wait([running])
        assert world.blobs.sizes() == {}

    asyncio.run(main())


def test_what_lingers_is_let_go_when_it_is_settled(world: World) -> None:
    digest = world.put(b"checkpoint")
    for _ in range(2):
        world.blobs.linger(digest, 60.0)
    world.blobs.settle(digest)
    asyncio.run(world.keeper.collect())
    assert world.has(digest)
    world.blobs.settle(digest)
    world.blobs.settle("sha256:" + "0" * 64)
    asyncio.run(world.keeper.collect())
    assert not world.has(digest)
