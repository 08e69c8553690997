"""From the previous release's database to this one's: nothing is lost, whenever it is killed."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event

from llmos.errors import StorageError
from llmos.security.keys import Keys
from llmos.storage import migrations
from llmos.storage.database import FILENAME, open_database
from llmos.storage.home import Home
from llmos.telemetry import faults

SECRET = "llmos_of-the-previous-release"
ROWS = """
INSERT INTO boots VALUES (1, 10, 11), (2, 20, NULL);
INSERT INTO tenants VALUES ('default', 'default', 1, 1), ('ten_1', '租户 🐼', 2, 1);
INSERT INTO principals VALUES ('prn_1', 'ten_1', 'alice', 'user', 1, 2.5, 3, 1);
INSERT INTO keys VALUES ('key_1', 'laptop', 'ten_1', 'prn_1', X'{digest}', 4, NULL, 1);
INSERT INTO blobs VALUES ('sha256:aa', 5, 6, 1);
INSERT INTO models
  VALUES ('mdl_1', 'ten_1', NULL, 'qwen', 1, 'sha256:dd', '{{"a": 1}}', 7, NULL, 1);
INSERT INTO models VALUES ('mdl_2', 'ten_1', NULL, 'qwen', 2, 'sha256:ee', '{{}}', 8, 9, 1);
INSERT INTO model_files VALUES ('mdl_1', 'weights.safetensors', 'sha256:aa');
"""
NEW = {"jobs", "files", "requests", "footprints"}
"""Tables that 0001 does not have."""


def _dump(path: Path) -> dict[str, list[Any]]:
    """Every row of the tables of 0001, and the revision."""
    names = ["tenants", "principals", "keys", "blobs", "models", "model_files", "alembic_version"]
    raw = sqlite3.connect(path)
    try:
        return {name: raw.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    finally:
        raw.close()


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as release 0001 left it, with data in it."""
    path = tmp_path_factory.mktemp("previous") / FILENAME
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        migrations.upgrade(connection, "0001")
    engine.dispose()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.executescript(ROWS.format(digest=hashlib.sha256(SECRET.encode()).hexdigest()))
    raw.close()
    return path


@pytest.fixture
def old(opened: Home, previous: Path) -> Path:
    return Path(shutil.copy(previous, opened.db))


def test_keys_and_models_of_the_previous_release_work(opened: Home, old: Path) -> None:
    before = _dump(old)
    database = open_database(opened.db)
    assert database.epoch == 3
    keys = Keys(opened, database)
    asyncio.run(keys.open())
    principal = keys.authenticate(SECRET)
    assert (principal.principal_id, principal.tenant_id, principal.weight) == (
        "prn_1",
        "ten_1",
        2.5,
    )
    database.close()
    after = _dump(old)
    assert before.pop("alembic_version") == [("0001",)]
    assert after.pop("alembic_version") == [(migrations.HEAD,)]
    assert [row for row in after["principals"] if row[0] == "prn_1"] == before["principals"]
    for name in ("tenants", "keys", "blobs", "models", "model_files"):
        assert after[name] == before[name]
    assert _dump(old.with_name(f"{FILENAME}.0001.bak"))["models"] == before["models"]


def test_the_upgrade_failing_at_any_statement_leaves_the_old_database(old: Path) -> None:
    engine = create_engine(f"sqlite:///{old}", connect_args={"isolation_level": None})
    event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    before, left = _dump(old), 0

    class Killed(Exception):
        pass

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    event.listen(engine, "before_cursor_execute", count)
    num = 0
    while True:
        num += 1
        left = num + 1  # BEGIN is one too
        try:
            with engine.begin() as connection:
                migrations.upgrade(connection)
        except Killed:
            assert _dump(old) == before
            assert _tables(old).isdisjoint(NEW)
        else:
            break
    engine.dispose()
    assert num > 30 and _tables(old) >= NEW


def _tables(path: Path) -> set[str]:
    raw = sqlite3.connect(path)
    try:
        return {name for (name,) in raw.execute("SELECT name FROM sqlite_master")}
    finally:
        raw.close()


KILLED = """
import os, sys
from pathlib import Path
from sqlalchemy import Engine, event
from llmos.storage.database import open_database
from llmos.telemetry import faults
where = sys.argv[2]
def die(*_):
    os.kill(os.getpid(), 9)
if where.isdigit():
    left = int(where)
    def count(*_):
        global left
        left -= 1
        if left == 0:
            die()
    event.listen(Engine, "after_cursor_execute", count)
else:
    faults.install(lambda point: die() if point == where else None)
open_database(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "where", ["25", "database.migrate.before_commit", "database.migrate.after_commit"]
)
def test_an_upgrade_that_is_killed_is_whole_or_not_there(
    opened: Home, old: Path, where: str
) -> None:
    command = [sys.executable, "-c", KILLED, str(opened.db), where]
    assert subprocess.run(command, check=False).returncode == -9
    before = _dump(old)
    assert before["alembic_version"] == [
        (migrations.HEAD if where == "database.migrate.after_commit" else "0001",)
    ]
    database = open_database(opened.db)
    assert database.write_now(_revision) == migrations.HEAD
    database.close()
    assert _dump(old)["models"] == before["models"]


def _revision(connection: Connection) -> str | None:
    return migrations.find_revision(connection)


def test_a_disk_that_fills_during_the_upgrade(opened: Home, old: Path) -> None:
    def full(point: str) -> None:
        if point == "database.migrate.before_commit":
            raise OSError(28, "No space left on device")

    with faults.installed(full), pytest.raises(StorageError, match="full"):
        open_database(opened.db)
    assert _dump(old)["alembic_version"] == [("0001",)]
    open_database(opened.db).close()
