from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import insert

from llmos.abi.home import BackupReport
from llmos.errors import (
    Conflict,
    DiskFull,
    InvalidRequest,
    StorageError,
)
from llmos.storage.backup import UNFINISHED
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.home import Home, open_home
from llmos.storage.manifest import MANIFEST, SEAL, read_manifest
from llmos.storage.references import all_references
from llmos.storage.restore import restore
from llmos.storage.tables import tenants
from llmos.telemetry import faults
from tests.contract.storage.test_housekeeping import World
from tests.unit.storage.conftest import SMALL


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def world(opened: Home, database: Database) -> World:
    made = World(opened, database)
    made.refer("model", made.put(b"weights" * 1000))
    made.refer("file", made.put("数据 🐼".encode()), 1)
    made.refer("checkpoint of a live job", made.put(b"state"), 2)
    made.put(b"nobody wants this")
    return made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def _back_up(world: World, target: Path) -> BackupReport:
    return asyncio.run(world.keeper.back_up(str(target)))


def _contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _referred(home: Path) -> tuple[set[str], set[str]]:
    """Of a home nobody has open: digests that rows refer to, and those that are there."""
    opened = open_home(home)
    database = open_database(opened.db, SMALL)
    wanted = set().union(*database.write_now(all_references).values())
    database.close()
    opened.close()
    return wanted, {f"sha256:{path.name}" for path in opened.blobs.rglob("*") if path.is_file()}


def test_there_and_back(world: World, target: Path, tmp_path: Path) -> None:
    report = _back_up(world, target)
    manifest = read_manifest(target)
    assert (report.num_files, report.size_bytes) == (4, manifest.size_bytes)
    assert (report.missing, report.notes) == ([], [])
    assert manifest.counts == {"models": 1, "files": 1, "jobs": 1, "keys": 0}
    assert manifest.epoch == world.database.epoch
    assert world.metric("llmos:last_backup_timestamp_seconds")
    told: list[tuple[str, int, int]] = []
    home = tmp_path / "restored"
    done = restore(target, home, progress=lambda *step: told.append(step))
    assert (done.home, done.aside, done.num_files) == (str(home), None, 4)
    assert {phase for phase, *_ in told} == {"verify", "copy"}
    assert told[-1][1:] == (manifest.size_bytes, manifest.size_bytes)
    wanted, present = _referred(home)
    assert wanted == present
    assert len(wanted) == 3
    assert not list(tmp_path.glob(".*"))


def test_it_is_private_and_holds_no_secret(world: World, target: Path) -> None:
    (world.home.scratch / "of a worker").write_text("secret")
    (world.home.uploads / "unfinished").write_text("secret")
    _back_up(world, target)
    assert {p.name for p in target.iterdir()} == {"db", "blobs", MANIFEST, SEAL}
    for path in [target, *target.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o400 if "blobs" in path.parts else 0o600)
    assert all(world.home.token.encode() not in data for data in _contents(target).values())


def test_a_restored_home_has_a_token_of_its_own(world: World, target: Path, tmp_path: Path) -> None:
    _back_up(world, target)
    restore(target, tmp_path / "restored")
    assert (tmp_path / "restored" / "token").read_text().strip() != world.home.token


def test_blobs_are_linked_where_they_can_be(world: World, target: Path) -> None:
    _back_up(world, target)
    blobs = list((target / "blobs").rglob("*"))
    assert all(path.stat().st_nlink == 2 for path in blobs if path.is_file())


def test_blobs_are_copied_elsewhere(
    world: World, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", refuse)
    _back_up(world, target)
    paths = [path for path in (target / "blobs").rglob("*") if path.is_file()]
    assert {path.stat().st_nlink for path in paths} == {1}
    restore(target, tmp_path / "restored")
    wanted, present = _referred(tmp_path / "restored")
    assert wanted == present


def test_a_copy_that_would_reach_the_floor_is_refused(
    world: World, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(world.blobs, "_config", StorageConfig(min_free_bytes=1 << 62))
    with pytest.raises(DiskFull, match="must stay free"):
        _back_up(world, target)
    assert not target.exists()


def test_sweeps_wait_for_no_backup_and_take_nothing_from_it(world: World, target: Path) -> None:
    """A file is removed and swept while the backup copies it."""

    async def main() -> None:
        stored = asyncio.Event()
        loop = asyncio.get_running_loop()
        swept = asyncio.Event()

        def pause(point: str) -> None:
            if point == "backup.blobs.stored" and not stored.is_set():
                loop.call_soon_threadsafe(stored.set)
                asyncio.run_coroutine_threadsafe(swept.wait(), loop).result(10)

        with faults.installed(pause):
            making = asyncio.create_task(world.keeper.back_up(str(target)))
            await stored.wait()
            await world.files.remove("file_1")
            await world.keeper.collect()
            swept.set()
            report = await making
        assert report.missing == []
        assert (await world.keeper.collect()).by_use["files"] == 0

    asyncio.run(main())
    assert read_manifest(target).counts["files"] == 1


def test_beside_writers_it_is_one_moment(world: World, target: Path, tmp_path: Path) -> None:
    """Files come and go, and sweeps run, while backups are made: each restores whole."""

    async def main() -> list[int]:
        done = asyncio.Event()
        ids: list[str] = []

        async def churn() -> None:
            number = 0
            while not done.is_set():
                number += 1
                ids.append((await world.add_file(b"file %d" % number, "upl_c")).file_id)
                if number % 3 == 0:
                    await world.files.remove(ids.pop(0))
                if number % 5 == 0:
                    await world.keeper.collect()

        churning = asyncio.create_task(churn())
        counts = []
        for number in range(3):
            await world.keeper.back_up(str(target.with_name(f"backup{number}")))
            counts.append(len(ids))
        done.set()
        await churning
        return counts

    asyncio.run(main())
    for number in range(3):
        home = tmp_path / f"restored{number}"
        restore(target.with_name(f"backup{number}"), home)
        wanted, present = _referred(home)
        assert wanted <= present
        assert len(wanted) >= 3


def test_writers_go_on_while_the_database_is_copied(world: World, target: Path) -> None:
    async def main() -> None:
        def write(point: str) -> None:
            if point == "backup.begin.marked":
                world.database.write_now(
                    lambda c: c.execute(
                        insert(tenants).values(tenant_id="n", name="n", created_ns=1, epoch=1)
                    )
                )

        with faults.installed(write):
            await world.keeper.back_up(str(target))

    asyncio.run(main())
    copy = sqlite3.connect(f"{(target / 'db' / 'llmos.db').as_uri()}?immutable=1", uri=True)
    assert copy.execute("SELECT count(*) FROM tenants").fetchone() == (2,)
    copy.close()


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_what_is_lost_already_is_told_and_the_rest_is_kept(
    world: World, target: Path, tmp_path: Path, how: str
) -> None:
    lost = world.put(b"file")
    world.refer("file", lost, 9)
    path = world.blobs.path(lost)
    if how == "gone":
        path.unlink()
    else:
        path.chmod(0o600)
        path.write_bytes(b"fi1e")
    report = _back_up(world, target)
    assert report.missing == [lost]
    assert read_manifest(target).missing == [lost]
    restore(target, tmp_path / "restored")
    wanted, present = _referred(tmp_path / "restored")
    assert wanted - present == {lost}


@pytest.mark.parametrize("path", ["", "relative", "/", "/nowhere/at/all", "a\0b", "/tmp/.."])
def test_bad_targets(world: World, path: str) -> None:
    with pytest.raises((InvalidRequest, Conflict)):
        asyncio.run(world.keeper.back_up(path))


def test_where_a_backup_may_not_go(world: World, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    before = _contents(world.home.path).keys()
    home = world.home.path
    for target in (file, full, link, home, home / "scratch" / "b", home.parent):
        with pytest.raises((InvalidRequest, Conflict)):
            _back_up(world, target)
    assert (full / "mine").read_text() == "x"
    assert _contents(world.home.path).keys() == before


def test_an_empty_folder_is_used_and_left_when_it_fails(
    world: World, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.mkdir(mode=0o755)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskFull):
        patch.setattr(os, "link", full)
        _back_up(world, target)
    assert list(target.iterdir()) == []
    _back_up(world, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


BACKUP_POINTS = [point for point in faults.POINTS if point.startswith("backup.")]


@pytest.mark.parametrize("point", BACKUP_POINTS)
def test_an_error_anywhere_leaves_nothing(world: World, target: Path, point: str) -> None:
    def fail(name: str) -> None:
        if name == point:
            raise StorageError("EIO")

    with faults.installed(fail), pytest.raises(StorageError, match="EIO"):
        _back_up(world, target)
    assert not target.exists()
    assert world.blobs.held() == set()
    assert _back_up(world, target).num_files == 4


@pytest.mark.parametrize("point", [p for p in BACKUP_POINTS if p != "backup.seal.sealed"])
def test_cancelled_anywhere_it_leaves_nothing(world: World, target: Path, point: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def cancel(name: str) -> None:
            if name == point:
                loop.call_soon_threadsafe(making.cancel)
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(10)

        with faults.installed(cancel):
            making = asyncio.create_task(world.keeper.back_up(str(target)))
            with pytest.raises(asyncio.CancelledError):
                await making

    asyncio.run(main())
    assert not target.exists()


def test_one_at_a_time(world: World, target: Path) -> None:
    async def main() -> None:
        first = asyncio.create_task(world.keeper.back_up(str(target)))
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="already"):
            await world.keeper.back_up(str(target.with_name("other")))
        await first

    asyncio.run(main())


class Died(BaseException):
    """In the place of a kill: what cleans up after errors does not run."""


@pytest.mark.parametrize("point", BACKUP_POINTS)
def test_killed_anywhere_it_is_whole_or_no_backup(
    world: World, target: Path, tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(name: str) -> None:
        if name == point:
            raise Died

    monkeypatch.setattr("llmos.storage.backup.BackupWriter.discard", lambda _: None)
    with faults.installed(die), pytest.raises(Died):
        _back_up(world, target)
    if point == "backup.seal.sealed":
        assert restore(target, tmp_path / "restored").num_files == 4
        return
    with pytest.raises(InvalidRequest, match="not a whole backup"):
        restore(target, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    if point != "backup.seal.before_seal":  # the next one may use the folder again
        assert (target / UNFINISHED).exists()
        assert _back_up(world, target).num_files == 4
        assert restore(target, tmp_path / "restored").num_files == 4
