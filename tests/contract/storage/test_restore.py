"""A home out of a backup, and backups that are refused."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from llmos.errors import (
    ConfigError,
    Conflict,
    DigestMismatch,
    DiskFull,
    HomeLocked,
    InvalidRequest,
    LLMOSError,
    StorageError,
)
from llmos.storage import manifest as manifests
from llmos.storage.database import open_database
from llmos.storage.home import open_home
from llmos.storage.manifest import MANIFEST, SEAL, Manifest, read_manifest
from llmos.storage.restore import restore
from llmos.storage.tables import files
from llmos.telemetry import faults
from tests.contract.storage.test_backup import (
    Died,
    _back_up,
    _contents,
    _referred,
    no_power_cut,
    target,
    world,
)
from tests.contract.storage.test_housekeeping import World
from tests.unit.storage.conftest import SMALL

__all__ = ["no_power_cut", "target", "world"]  # fixtures


@pytest.fixture
def made(world: World, target: Path) -> Path:
    _back_up(world, target)
    return target


def _refused(backup: Path, home: Path, *kinds: type[LLMOSError], **options: Any) -> LLMOSError:
    with pytest.raises(kinds) as caught:
        restore(backup, home, **options)
    assert not home.exists()
    return caught.value


def test_every_flipped_byte_is_found(made: Path, tmp_path: Path) -> None:
    """Every byte of every file but the database, of which every 997th."""
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        path.chmod(0o600)
        step = 997 if path.suffix == ".db" else 61 if len(whole) > 1000 else 1
        for at in range(0, len(whole), step):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << at % 8
            path.write_bytes(damaged)
            with pytest.raises(DigestMismatch) as caught:
                manifests.verify(made, read_manifest(made), lambda _: None)
            assert (MANIFEST if path.name == SEAL else path.name) in str(caught.value)
        path.write_bytes(whole)
    assert restore(made, tmp_path / "restored").num_files == 4


def test_a_cut_short_file_is_named(made: Path, tmp_path: Path) -> None:
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(whole[:-1])
        error = _refused(made, tmp_path / "h", DigestMismatch)
        assert path.name in str(error) or path.name == SEAL
        path.unlink()
        _refused(made, tmp_path / "h", InvalidRequest, StorageError)
        path.write_bytes(whole)


def test_foreign_files_and_folders(made: Path, tmp_path: Path) -> None:
    _refused(tmp_path / "nowhere", tmp_path / "h", InvalidRequest)
    (tmp_path / "empty").mkdir()
    _refused(tmp_path / "empty", tmp_path / "h", InvalidRequest)
    _refused(made / MANIFEST, tmp_path / "h", InvalidRequest)
    (made / "blobs" / "more").write_text("x")
    assert "more" in str(_refused(made, tmp_path / "h", DigestMismatch))
    (made / "blobs" / "more").unlink()
    (made / "blobs" / "more").symlink_to("/etc/passwd")
    _refused(made, tmp_path / "h", DigestMismatch)
    (made / "blobs" / "more").unlink()
    blob = next(path for path in (made / "blobs").rglob("*") if path.is_file())
    blob.rename(made.with_name("moved"))
    blob.symlink_to(made.with_name("moved"))
    _refused(made, tmp_path / "h", StorageError)


def _rewrite(backup: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A manifest somebody wrote, with its seal right."""
    body = json.loads((backup / MANIFEST).read_bytes())
    change(body)
    data = json.dumps(body).encode()
    (backup / MANIFEST).write_bytes(data)
    (backup / SEAL).write_bytes(manifests._seal_of(data))


FORGED: dict[str, tuple[Callable[[dict[str, Any]], Any], type[LLMOSError]]] = {
    "newer": (lambda m: m.update(format=99, future={}), ConfigError),
    "newer home": (lambda m: m.update(home_format=99), ConfigError),
    "foreign": (lambda m: m.update(what="a shopping list"), InvalidRequest),
    "unknown field": (lambda m: m.update(more=1), InvalidRequest),
    "no files": (lambda m: m.update(files=[]), InvalidRequest),
    "escape": (lambda m: m["files"][0].update(path="../../etc/cron.d/x"), InvalidRequest),
    "absolute": (lambda m: m["files"][0].update(path="/etc/passwd"), InvalidRequest),
    "twice": (lambda m: m["files"].append(m["files"][0]), InvalidRequest),
    "negative": (lambda m: m["files"][0].update(size_bytes=-1), InvalidRequest),
    "huge": (lambda m: m["files"][0].update(size_bytes=10**30), DigestMismatch),
    "not its digest": (lambda m: m["files"][-1].update(sha256="0" * 64), DigestMismatch),
}


@pytest.mark.parametrize("forged", FORGED)
def test_forged_manifests(made: Path, tmp_path: Path, forged: str) -> None:
    change, kind = FORGED[forged]
    _rewrite(made, change)
    error = _refused(made, tmp_path / "h", kind)
    assert str(made) in str(error)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{", b"null", b'{"what":1}', b"[" * 9999])
def test_manifests_that_are_none(made: Path, tmp_path: Path, body: bytes) -> None:
    (made / MANIFEST).write_bytes(body)
    (made / SEAL).write_bytes(manifests._seal_of(body))
    _refused(made, tmp_path / "h", InvalidRequest)


def test_a_blob_that_rows_refer_to_must_be_in_it(made: Path, tmp_path: Path) -> None:
    def leave_out(manifest: dict[str, Any]) -> None:
        (made / manifest["files"].pop()["path"]).unlink()

    _rewrite(made, leave_out)
    assert "refer to" in str(_refused(made, tmp_path / "h", DigestMismatch))
    assert not list(tmp_path.glob(".*"))


def test_a_database_of_a_newer_release(world: World, target: Path, tmp_path: Path) -> None:
    world.database.write_now(
        lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    )
    _back_up(world, target)
    _refused(target, tmp_path / "h", ConfigError)
    assert not list(tmp_path.glob(".*"))


def test_a_home_that_is_there_is_not_touched(world: World, made: Path, tmp_path: Path) -> None:
    home = tmp_path / "there"
    other = open_home(home)
    token = other.token
    with pytest.raises(Conflict, match="--force"):
        restore(made, home)
    with pytest.raises(HomeLocked):
        restore(made, home, force=True)
    other.close()
    done = restore(made, home, force=True)
    assert done.aside is not None
    assert (Path(done.aside) / "token").read_text().strip() == token
    assert _referred(home)[0]
    again = restore(made, home, force=True)
    assert again.aside is not None and again.aside != done.aside


def test_places_that_are_no_home(made: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    link = tmp_path / "link"
    link.symlink_to(full)
    for home in (file, full, link, made / "home"):
        with pytest.raises((Conflict, InvalidRequest)):
            restore(made, home, force=True)
    assert (full / "mine").read_text() == "x"
    (tmp_path / "empty").mkdir()
    assert restore(made, tmp_path / "empty").num_files == 4
    assert restore(made, tmp_path / "deep" / "er" / "home").num_files == 4


RESTORE_POINTS = [point for point in faults.POINTS if point.startswith("restore.")]


@pytest.mark.parametrize("point", RESTORE_POINTS)
def test_killed_anywhere_a_restore_can_be_made_again(
    made: Path, tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "h"
    open_home(home).close()
    token = (home / "token").read_text()

    def die(name: str) -> None:
        if name == point:
            monkeypatch.setattr("llmos.storage.restore.remove_tree", lambda _: None)
            raise Died

    with faults.installed(die), pytest.raises(Died):
        restore(made, home, force=True)
    monkeypatch.undo()
    aside = list(tmp_path.glob("h.before-restore-*"))
    old = aside[0] if aside else home
    assert (old / "token").read_text() == token
    restore(made, home, force=True)
    assert _referred(home)[0]
    assert not list(tmp_path.glob(".h*"))


def test_an_error_in_the_middle_leaves_the_place_as_it_was(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "h"
    open_home(home).close()
    before = _contents(home)

    for point in RESTORE_POINTS[:-1]:

        def fail(name: str, point: str = point) -> None:
            if name == point:
                raise StorageError("EIO")

        with faults.installed(fail), pytest.raises(StorageError):
            restore(made, home, force=True)
        assert _contents(home) == before, point
        assert not list(tmp_path.glob(".h*"))


def test_full_disk_while_restoring(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskFull):
        patch.setattr(os, "link", full)
        restore(made, tmp_path / "h")
    assert not (tmp_path / "h").exists()
    assert not list(tmp_path.glob(".h*"))


def test_another_restore_at_the_same_time(made: Path, tmp_path: Path) -> None:
    def again(point: str) -> None:
        if point == "restore.staging.checked":
            with pytest.raises(Conflict, match="another restore"):
                restore(made, tmp_path / "h")

    with faults.installed(again):
        restore(made, tmp_path / "h")


def test_a_backup_can_be_moved_and_used_twice(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(made, moved)
    for number in range(2):
        home = tmp_path / f"h{number}"
        restore(moved, home)
        opened = open_home(home)
        database = open_database(opened.db, SMALL)
        count = database.write_now(
            lambda c: c.execute(select(func.count(files.c.file_id))).scalar()
        )
        database.close()
        opened.close()
        assert count == 1
    assert read_manifest(moved)


def test_the_manifest_says_what_is_elsewhere(world: World, target: Path, tmp_path: Path) -> None:
    elsewhere = open_database(tmp_path, SMALL)
    world.refer("file", world.put(b"here"), 7)
    try:
        keeper = world.made_keeper(elsewhere)
        report = asyncio.run(keeper.back_up(str(target)))
    finally:
        elsewhere.close()
    assert len(report.notes) == 1 and "PostgreSQL" in report.notes[0]
    manifest = read_manifest(target)
    assert manifest.notes == report.notes
    assert msgspec.json.decode((target / MANIFEST).read_bytes(), type=Manifest) == manifest
