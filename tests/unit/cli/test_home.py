"""`backup restore disk gc`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import open_database
from llmos.storage.home import open_home
from llmos.storage.housekeeping import HomeKeeper
from llmos.storage.uploads import Uploads
from llmos.telemetry.metrics import Metrics
from tests.unit.cli.conftest import Run
from tests.unit.sdk.fake import BACKUP, DISK, Server, refusal


def ok(value: Any) -> httpx.Response:
    return httpx.Response(200, json=value)


def test_backup(
    llmos: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.routes["POST /os/v1/backup"] = ok(BACKUP)
    monkeypatch.chdir(tmp_path)
    done = llmos("backup", "备份")
    assert (done.code, done.err) == (0, "")
    assert done.out == "/media/backup: 4 files, 12.0 MB, in 1.2 s\n"
    assert server.body() == {"path": str(tmp_path / "备份")}
    assert llmos("backup", "~/b", "--json").json == BACKUP


def test_a_backup_that_lacks_something_ends_with_1(llmos: Run, server: Server) -> None:
    report = {**BACKUP, "missing": ["sha256:ab"], "notes": ["jobs are elsewhere"]}
    server.routes["POST /os/v1/backup"] = ok(report)
    done = llmos("backup", "/b")
    assert done.code == 1
    assert "sha256:ab" in done.err and "jobs are elsewhere" in done.err
    assert llmos("backup", "/b", "--json").code == 1


def test_a_backup_that_is_refused(llmos: Run, server: Server) -> None:
    server.routes["POST /os/v1/backup"] = refusal(409, "conflict")
    assert llmos("backup", "/b").code == 1
    server.routes["POST /os/v1/backup"] = refusal(507, "disk_full")
    assert "llmos gc" in llmos("backup", "/b").err


def test_disk(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/disk"] = ok(DISK)
    rows = [line.split("  ") for line in llmos("disk").out.splitlines()]
    shown = {row[0]: row[-1].strip() for row in rows if row[0]}
    assert (shown["models"], shown["files"], shown["database"]) == ("10.0 MB", "2.0 MB", "300 kB")
    assert shown["suspended requests"] == "7.0 MB"
    assert llmos("disk", "--json").json == DISK


def test_disk_warns(llmos: Run, server: Server) -> None:
    report = {**DISK, "free_bytes": 1, "num_missing": 2, "missing": ["sha256:ab", "sha256:cd"]}
    server.routes["GET /os/v1/disk"] = ok(report)
    err = llmos("disk").err
    assert "min_free_bytes" in err and "2 blobs" in err and "sha256:ab" in err


def test_gc(llmos: Run, server: Server) -> None:
    server.routes["POST /os/v1/blobs/collect"] = ok(DISK)
    assert llmos("gc").out == "freed 5.0 MB; 400 MB are free\n"
    assert llmos("gc", "--json").json == DISK


@pytest.fixture
def backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backup of an empty home."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    home = open_home(tmp_path / "original")
    config = StorageConfig(min_free_bytes=0)
    database = open_database(home.db, config)
    blobs = Blobs(home, config)
    uploads = Uploads(home, blobs, config)
    keeper = HomeKeeper(home, database, database, blobs, uploads, metrics=Metrics())
    asyncio.run(keeper.back_up(str(tmp_path / "backup")))
    database.close()
    home.close()
    return tmp_path / "backup"


def test_restore_needs_no_server(llmos: Run, backup: Path, tmp_path: Path) -> None:
    home = tmp_path / "恢复"
    done = llmos("restore", str(backup), "--home", str(home))
    assert done.code == 0
    assert done.out.startswith(f"{home}: 1 files, ")
    assert (home / "token").is_file()
    again = llmos("restore", str(backup), "--home", str(home))
    assert again.code == 1
    assert "--force" in again.err
    forced = llmos("restore", str(backup), "--home", str(home), "--force", "--json")
    assert forced.json["home"] == str(home)
    assert Path(forced.json["aside"]).is_dir()
    assert forced.json["counts"] == {"models": 0, "files": 0, "jobs": 0, "keys": 0}


def test_restore_names_the_damaged_file(llmos: Run, backup: Path, tmp_path: Path) -> None:
    database = backup / "db" / "llmos.db"
    whole = bytearray(database.read_bytes())
    whole[5000] ^= 1
    database.write_bytes(whole)
    done = llmos("restore", str(backup), "--home", str(tmp_path / "h"), "--json")
    assert done.code == 1
    assert done.error["code"] == "digest_mismatch"
    assert str(database) in done.error["message"]
    assert not (tmp_path / "h").exists()
