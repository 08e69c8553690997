from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select

from llmos.errors import ConfigError, Conflict, DiskFull, QueueFull, StorageError
from llmos.storage import migrations
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.home import Home
from llmos.storage.tables import tenants
from llmos.telemetry import faults


def _add(name: str) -> insert:
    return insert(tenants).values(tenant_id=name, name=name, created_ns=1, epoch=1)


def _count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(tenants)).scalar_one()


def test_a_write_is_read_back_and_outlives_the_process(database: Database, opened: Home) -> None:
    async def main() -> None:
        await database.write(lambda c: c.execute(_add("租户 🐼")))
        assert await database.read(_count) == 2

    asyncio.run(main())
    database.close()
    again = open_database(opened.db)
    assert asyncio.run(again.read(_count)) == 2
    assert again.epoch == database.epoch + 1
    again.close()


def test_an_error_undoes_the_whole_transaction(database: Database) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(_add("a"))
        raise Conflict("no")

    with pytest.raises(Conflict):
        database.write_now(fail)
    with pytest.raises(StorageError, match="UNIQUE"):
        database.write_now(lambda c: [c.execute(_add("a")), c.execute(_add("a"))])
    assert database.write_now(_count) == 1


def test_ddl_is_undone_too(database: Database) -> None:
    def fail(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE x (y INTEGER)")
        raise Conflict("no")

    with pytest.raises(Conflict):
        database.write_now(fail)
    with pytest.raises(StorageError, match="no such table"):
        database.write_now(lambda c: c.exec_driver_sql("SELECT * FROM x"))


def test_the_settings_that_durability_rests_on(database: Database) -> None:
    def pragmas(connection: Connection) -> list[object]:
        names = ["journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint", "query_only"]
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert database.write_now(pragmas) == ["wal", 2, 1, 0, 0]
    assert asyncio.run(database.read(pragmas)) == ["wal", 2, 1, 0, 1]


def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(StorageError, match="readonly"):
        asyncio.run(database.read(lambda c: c.execute(_add("a"))))


def test_foreign_keys_hold(database: Database) -> None:
    statement = "INSERT INTO model_files VALUES ('mdl', 'x', 'sha256:0')"
    with pytest.raises(StorageError, match="FOREIGN KEY"):
        database.write_now(lambda c: c.exec_driver_sql(statement))


def test_one_thread_writes(database: Database) -> None:
    async def main() -> set[str]:
        names = [database.write(lambda _: threading.current_thread().name) for _ in range(20)]
        return set(await asyncio.gather(*names))

    (name,) = asyncio.run(main())
    assert name.startswith("llmos-db-writer")


def test_the_writer_alone_checkpoints(opened: Home) -> None:
    config = StorageConfig(min_free_bytes=0, checkpoint_bytes=30_000)
    database = open_database(opened.db, config)
    wal = database.path.with_name("llmos.db-wal")
    sizes = []
    for number in range(40):
        database.write_now(lambda c, n=number: c.execute(_add(f"t{n}")))
        sizes.append(wal.stat().st_size)
    assert max(sizes) < 150_000  # without checkpoints it would be over 300,000
    database.close()
    assert not wal.exists()


def test_a_log_is_not_checkpointed_at_every_commit(opened: Home) -> None:
    """Once checkpointed it is written over, and its file stays as long as it was."""
    config = StorageConfig(min_free_bytes=0, checkpoint_bytes=100_000)
    database = open_database(opened.db, config)
    reached: list[str] = []
    with faults.installed(reached.append):
        for number in range(100):
            database.write_now(lambda c, n=number: c.execute(_add(f"t{n}")))
    database.close()
    assert 2 <= reached.count("database.checkpoint.after") <= 20


def test_probe_writes(database: Database) -> None:
    asyncio.run(database.probe())
    stamp = f"SELECT probed_ns FROM boots WHERE epoch = {database.epoch}"
    assert database.write_now(lambda c: c.exec_driver_sql(stamp).scalar_one()) > 10**18


def test_a_full_disk_is_named(database: Database) -> None:
    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        for number in range(2000):
            connection.execute(_add(f"{number}" * 20))

    with pytest.raises(DiskFull):
        database.write_now(fill)
    assert database.write_now(_count) == 1


def test_too_many_calls_are_refused(opened: Home) -> None:
    database = open_database(opened.db, StorageConfig(max_pending=2))
    gate = threading.Event()

    async def main() -> None:
        first = [asyncio.create_task(database.write(lambda _: gate.wait(5))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await database.write(_count)
        gate.set()
        await asyncio.gather(*first)
        assert await database.write(_count) == 1

    asyncio.run(main())
    database.close()


def test_secrets_in_parameters_are_not_in_messages(database: Database) -> None:
    with pytest.raises(StorageError) as caught:
        database.write_now(
            lambda c: c.exec_driver_sql("INSERT INTO nowhere VALUES (?)", ("s3cret",))
        )
    assert "s3cret" not in str(caught.value) + str(caught.value.__cause__)


def test_closed_is_a_typed_error(database: Database) -> None:
    database.close()
    database.close()
    with pytest.raises(StorageError, match="closed"):
        database.write_now(_count)


def test_files_are_private(database: Database) -> None:
    database.write_now(lambda c: c.execute(_add("a")))
    for path in database.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_file_that_is_no_database(opened: Home) -> None:
    (opened.db / "llmos.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="not a database"):
        open_database(opened.db)


def test_a_newer_database_is_refused_untouched(database: Database, opened: Home) -> None:
    database.close()
    with sqlite3.connect(opened.db / "llmos.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(ConfigError, match="9999"):
        open_database(opened.db)


KILLED = """
import os, sys
from pathlib import Path
from sqlalchemy import insert
from llmos.storage.database import open_database
from llmos.storage.tables import tenants
from llmos.telemetry import faults
database = open_database(Path(sys.argv[1]))
def add(connection, name):
    connection.execute(insert(tenants).values(tenant_id=name, name=name, created_ns=1, epoch=1))
database.write_now(lambda c: add(c, "kept"))
def die(connection):
    add(connection, "lost")
    os.kill(os.getpid(), 9)
database.write_now(die)
"""


def test_a_kill_loses_what_was_not_committed_and_nothing_else(opened: Home) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(opened.db)], check=False)
    assert done.returncode == -9
    database = open_database(opened.db)
    names = database.write_now(lambda c: set(c.execute(select(tenants.c.name)).scalars()))
    assert names == {"default", "kept"}
    database.close()


def test_opening_again_does_not_import_alembic(database: Database, opened: Home) -> None:
    database.close()
    code = (
        "import sys; from pathlib import Path; "
        "from llmos.storage.database import open_database;"
        "open_database(Path(sys.argv[1])).close(); sys.exit('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(opened.db)], check=False)
    assert done.returncode == 0


def test_the_copy_before_an_upgrade(
    database: Database, opened: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write_now(lambda c: c.execute(_add("a")))
    database.close()
    head = migrations.HEAD
    monkeypatch.setattr("llmos.storage.migrations.HEAD", "9999")
    monkeypatch.setattr("llmos.storage.migrations.upgrade", lambda _: None)
    open_database(opened.db).close()
    copy = opened.db / f"llmos.db.{head}.bak"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    raw = sqlite3.connect(copy)
    assert raw.execute("SELECT count(*) FROM tenants").fetchone() == (2,)
    raw.close()


def test_writers_do_not_wait_for_a_long_reader(opened: Home, migrated: Path) -> None:
    shutil.copy(migrated, opened.db)
    config = StorageConfig(busy_timeout_s=60.0, checkpoint_bytes=1)  # TRUNCATE after each commit
    database = open_database(opened.db, config)
    reading, done = threading.Event(), threading.Event()

    def read_on(connection: Connection) -> int:
        before = _count(connection)
        reading.set()
        assert done.wait(30)
        assert _count(connection) == before
        return before

    async def main() -> None:
        reader = asyncio.create_task(database.read(read_on))
        await asyncio.to_thread(reading.wait)
        async with asyncio.timeout(10):
            for name in "abc":
                await database.write(lambda c, name=name: c.execute(_add(name)))  # type: ignore[misc]
        done.set()
        assert await reader == 1

    asyncio.run(main())
    database.close()
