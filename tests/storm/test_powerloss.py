"""The power cut itself: what was synced stays, what was not goes, and nothing else is touched."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.storm.powerloss import NAMES, WRITE, Disk, build

PRELUDE = """
import os, signal, sqlite3, sys
os.chdir(sys.argv[1])
def die(): os.kill(os.getpid(), signal.SIGKILL)
def sync(name):
    fd = os.open(name, os.O_RDONLY); os.fsync(fd); os.close(fd)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        missing("the storm's file layer needs gcc")
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture
def disk(tmp_path: Path, library: Path) -> Disk:
    root = tmp_path / "root"
    root.mkdir()
    return Disk(root, tmp_path / "notes", library)


def run(disk: Disk, script: str) -> int:
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(disk.root)]
    return subprocess.run(command, env={**os.environ, **disk.env}, check=False).returncode


def test_without_an_fsync_a_write_is_gone_and_with_one_it_stays(disk: Disk) -> None:
    script = """
        with open("kept", "wb") as f:
            f.write(b"a" * 10_000); f.flush(); os.fsync(f.fileno())
            f.write(b"b" * 10_000); f.flush()
        open("unsynced", "w").write("x")
        sync(".")
        open("unnamed", "w").write("x")
        die()
    """
    assert run(disk, script) == -signal.SIGKILL
    assert (disk.root / "kept").stat().st_size == 20_000
    assert disk.cut() == 4
    assert (disk.root / "kept").read_bytes() == b"a" * 10_000
    assert (disk.root / "unsynced").read_bytes() == b""
    assert not (disk.root / "unnamed").exists()


def test_a_rename_needs_its_folder_synced(disk: Disk) -> None:
    script = """
        for name in ("one", "two"):
            with open(name, "w") as f:
                f.write("old"); f.flush(); os.fsync(f.fileno())
        sync(".")
        for name in ("one", "two"):
            with open("fresh", "w") as f:
                f.write("new"); f.flush(); os.fsync(f.fileno())
            os.replace("fresh", name)
            if name == "one": sync(".")
        os.unlink("one")
        die()
    """
    run(disk, script)
    assert not (disk.root / "one").exists()
    disk.cut()
    assert (disk.root / "one").read_text() == "new"
    assert (disk.root / "two").read_text() == "old"


def test_overwrites_and_truncations_are_taken_back_byte_by_byte(disk: Disk) -> None:
    script = """
        with open("file", "wb") as f:
            f.write(bytes(range(256)) * 64); f.flush(); os.fsync(f.fileno())
        sync(".")
        fd = os.open("file", os.O_WRONLY)
        os.pwrite(fd, b"!" * 5000, 3000); os.ftruncate(fd, 100); os.pwrite(fd, b"?" * 9000, 50_000)
        os.close(fd)
        open("file", "wb").write(b"tiny")
        die()
    """
    run(disk, script)
    disk.cut()
    assert (disk.root / "file").read_bytes() == bytes(range(256)) * 64


@pytest.mark.parametrize("seed", range(20))
def test_by_chance_every_page_is_from_some_moment_since_the_fsync(disk: Disk, seed: int) -> None:
    script = """
        fd = os.open("file", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"0" * 4096 * 8); os.fsync(fd); sync(".")
        for version in b"12345":
            for page in range(8):
                os.pwrite(fd, bytes([version]) * 4096, page * 4096)
        die()
    """
    run(disk, script)
    disk.cut(random.Random(seed))
    data = (disk.root / "file").read_bytes()
    pages = [data[i : i + 4096] for i in range(0, len(data), 4096)]
    assert len(pages) == 8
    assert all(len(set(page)) == 1 and page[:1] in b"012345" for page in pages)


@pytest.mark.parametrize("seed", [None, *range(15)])
def test_a_committed_transaction_of_sqlite_survives(disk: Disk, seed: int | None) -> None:
    script = """
        db = sqlite3.connect("db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL"); db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v BLOB)"); sync(".")
        for n in range(300):
            db.execute("INSERT INTO t VALUES (?, ?)", (n, bytes(500)))
            if n == 150: db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("BEGIN")
        for n in range(300, 900): db.execute("INSERT INTO t VALUES (?, 'x')", (n,))
        die()
    """
    run(disk, script)
    disk.cut(None if seed is None else random.Random(seed))
    import sqlite3

    db = sqlite3.connect(disk.root / "db")
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("SELECT count(*), max(n) FROM t").fetchall() == [(300, 299)]
    db.close()


def test_a_database_that_does_not_sync_is_caught(disk: Disk) -> None:
    script = """
        db = sqlite3.connect("db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL"); db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"); sync("."); sync("db"); sync("db-wal")
        for n in range(300): db.execute("INSERT INTO t VALUES (?)", (n,))
        die()
    """
    run(disk, script)
    disk.cut()
    import sqlite3

    db = sqlite3.connect(disk.root / "db")
    (count,) = db.execute("SELECT count(*) FROM t").fetchone()
    db.close()
    assert count < 300


def test_errors_can_be_switched_on_and_off(disk: Disk) -> None:
    script = """
        import errno
        def attempt(fn):
            try: fn()
            except OSError as e: return errno.errorcode[e.errno]
            return "ok"
        fd = os.open("file", os.O_RDWR | os.O_CREAT)
        print(attempt(lambda: os.write(fd, b"x")), attempt(lambda: open("other", "w")), flush=True)
        sys.stdin.readline()
        print(attempt(lambda: os.write(fd, b"x")), attempt(lambda: open("other", "w")), flush=True)
    """
    import errno

    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(disk.root)]
    process = subprocess.Popen(
        command,
        env={**os.environ, **disk.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ok ok\n"
    disk.fail(errno.ENOSPC, WRITE | NAMES)
    out, _ = process.communicate("\n")
    assert out == "ENOSPC ENOSPC\n"


def test_a_blob_of_a_new_home_survives(disk: Disk) -> None:
    script = """
        from pathlib import Path
        from llmos.storage.blobs import Blobs
        from llmos.storage.home import open_home
        home = open_home(Path(sys.argv[1]) / "home")
        (home.scratch / "file").write_bytes(b"bytes of a client")
        with Blobs(home).hold() as hold:
            Blobs(home).adopt(home.scratch / "file", hold)
        die()
    """
    assert run(disk, script) == -signal.SIGKILL
    disk.cut()
    (blob,) = disk.root.glob("home/blobs/sha256/*/*")
    assert blob.read_bytes() == b"bytes of a client"
