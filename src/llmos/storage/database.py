"""SQLite behind SQLAlchemy Core, with one writer that is also the only checkpointer.

**The WAL-reset bug.** SQLite before 3.51.3 can corrupt a database in WAL mode when one connection
checkpoints and resets the log while another, in another thread or process, writes or checkpoints
at the same moment. Here that cannot happen, whichever SQLite is linked:

- one process (the home's lock), so no other process has the file open;
- one connection that writes, on one thread of its own;
- checkpoints only by that same connection, between its transactions: `wal_autocheckpoint` is 0 on
  every connection, readers are `query_only`, and at the end they are closed before the writer, so
  that closing the last connection (which checkpoints) is the writer's too.

Transactions are begun by us (`BEGIN IMMEDIATE`, `isolation_level=None`), since the driver's own
mode does not begin one before DDL, and migrations must be all or nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from llmos.errors import DiskFull, LLMOSError, QueueFull, StorageError
from llmos.storage import migrations
from llmos.storage.config import StorageConfig
from llmos.storage.disk import FULL, mapped
from llmos.storage.tables import DEFAULT_TENANT, boots, tenants
from llmos.storage.writer import Writer
from llmos.telemetry.faults import reached

T = TypeVar("T")
FILENAME = "llmos.db"
REOPEN_AFTER = 3
"""Transactions that failed in a row, after which the writer's connection is opened again."""


class Database:
    """An open database. `epoch` counts openings. Calls run on its own threads, never the loop's."""

    shared = False

    def __init__(self, path: Path, config: StorageConfig) -> None:
        self.path = path
        self.epoch = 0
        self._config = config
        self._engine = _engine(path, config, writes=True)
        self._readers = _engine(path, config, writes=False)
        self._writer = Writer(self._engine, self, config, "llmos-db-writer")
        self._read_threads = ThreadPoolExecutor(
            config.num_readers, thread_name_prefix="llmos-db-reader"
        )
        self._num_commits = 0
        self._log_bytes = 0
        self._num_failed = 0
        self._num_reading = 0
        self._reading_lock = threading.Lock()
        self._closed = False

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in one transaction on the writer's thread: all of it or nothing. It may share
        its commit with other calls (`storage.writer`), never its failure.

        What has begun is finished even if the caller is cancelled. Raises what `fn` raises if it is
        an LLMOSError, else StorageError, DiskFull; QueueFull when too many calls wait.
        """
        return await self._writer.write(fn)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` on one consistent snapshot, on a reader's thread. Errors as `write`."""
        if self._closed:
            raise StorageError("the database is closed")
        with self._reading_lock:
            if self._num_reading >= self._config.max_pending:
                raise QueueFull("too many database calls are waiting", retry_after_s=1.0)
            self._num_reading += 1
        future = self._read_threads.submit(self._read, fn)
        future.add_done_callback(self._done_reading)
        return await asyncio.wrap_future(future)

    async def probe(self) -> None:
        """Prove that the store takes writes, by one. Raises StorageError, DiskFull."""
        await self.write(self._stamp_probe)

    def write_now(self, fn: Callable[[Connection], T]) -> T:
        """As `write`, for callers without a loop (boot, tests). Blocking."""
        return self._writer.write_now(fn)

    def close(self) -> None:
        """Finish what was begun, close readers, checkpoint, close the writer. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._read_threads.shutdown(wait=True, cancel_futures=True)
        self._readers.dispose()
        self._writer.close(self._close_writer)

    def typed(self, error: Exception) -> Exception:
        """See `writer.Backend`."""
        return typed(error)

    def is_open(self, connection: Connection) -> bool:
        """See `writer.Backend`: some errors (a full disk) end the whole transaction."""
        raw: Any = connection.connection.driver_connection
        return bool(raw.in_transaction)

    def may_repeat(self, error: Exception) -> bool:
        """See `writer.Backend`: nobody else writes, so nobody was in the way."""
        return False

    def committed(self) -> None:
        """See `writer.Backend`."""
        self._num_failed = 0
        self._num_commits += 1
        self._checkpoint_if_due()

    def failed(self) -> None:
        """See `writer.Backend`. A connection on which nothing works any more is opened again."""
        self._num_failed += 1
        if self._num_failed % REOPEN_AFTER == 0:
            self._engine.dispose()

    def _done_reading(self, _: Future[Any]) -> None:
        with self._reading_lock:
            self._num_reading -= 1

    def _read(self, fn: Callable[[Connection], T]) -> T:
        with _Mapped(), self._readers.begin() as connection:
            return fn(connection)

    def _checkpoint_if_due(self) -> None:
        """Runs on the writer's thread between transactions: see the module's docstring."""
        log_bytes = self._measure_log()
        config = self._config
        grown_bytes = log_bytes - self._log_bytes
        if grown_bytes < config.checkpoint_bytes and self._num_commits < config.checkpoint_commits:
            return
        self._num_commits = 0
        # TRUNCATE keeps readers waiting, so it is left for a log that passive ones did not stop.
        kind = "TRUNCATE" if log_bytes > 16 * config.checkpoint_bytes else "PASSIVE"
        with contextlib.suppress(OSError):  # what was committed stays so, in the log
            reached("database.checkpoint.before")
            # nor does it wait for them: a backup or an export may read for minutes
            self._pragma("busy_timeout = 0")
            self._pragma(f"wal_checkpoint({kind})")
            self._pragma(f"busy_timeout = {int(config.busy_timeout_s * 1000)}")
            reached("database.checkpoint.after")
        # a checkpointed log is written over from its beginning, and its file stays as long
        self._log_bytes = self._measure_log()

    def _measure_log(self) -> int:
        try:
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except OSError:
            return 0

    def _pragma(self, pragma: str) -> None:
        # a checkpoint that cannot be made now is made after a later commit
        with contextlib.suppress(sqlite3.Error, SQLAlchemyError):
            raw = self._engine.raw_connection()
            try:
                raw.cursor().execute(f"PRAGMA {pragma}").fetchall()
            finally:
                raw.close()

    def _stamp_probe(self, connection: Connection) -> None:
        stamp = update(boots).where(boots.c.epoch == self.epoch).values(probed_ns=time.time_ns())
        connection.execute(stamp)

    def _close_writer(self) -> None:
        self._pragma("wal_checkpoint(TRUNCATE)")
        self._engine.dispose()

    def start(self) -> None:
        """Migrate, count this opening, make the default tenant. Blocking."""
        self._writer.call(self._migrate)
        self.epoch = self.write_now(self._begin_epoch)

    def _migrate(self) -> None:
        with self._engine.begin() as connection:
            found = migrations.find_revision(connection)
        if found == migrations.HEAD:
            return
        if found is not None:
            self._back_up(self.path.with_name(f"{self.path.name}.{found}.bak"))
        with self._engine.begin() as connection:
            migrations.upgrade(connection)
            reached("database.migrate.before_commit")
        reached("database.migrate.after_commit")
        self._pragma("wal_checkpoint(TRUNCATE)")  # nobody reads yet: the log starts small

    def _back_up(self, copy: Path) -> None:
        """The database as it was before an upgrade; the previous release can go back to it."""
        copy.unlink(missing_ok=True)
        raw = self._engine.raw_connection()
        try:
            raw.cursor().execute("VACUUM INTO ?", (str(copy),))
            copy.chmod(0o600)
        except sqlite3.Error as error:
            raise StorageError(f"no copy could be made before the upgrade: {error}") from error
        finally:
            raw.close()

    def _begin_epoch(self, connection: Connection) -> int:
        now = time.time_ns()
        last = connection.execute(select(func.max(boots.c.epoch))).scalar() or 0
        connection.execute(insert(boots).values(epoch=last + 1, started_ns=now))
        connection.execute(
            upsert(tenants)
            .values(tenant_id=DEFAULT_TENANT, name=DEFAULT_TENANT, created_ns=now, epoch=last + 1)
            .on_conflict_do_nothing()
        )
        return int(last) + 1


class _Mapped:
    """Turns the database's errors into ours; all others pass."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and (mapped := typed(error)) is not error:
            raise mapped from error


def typed(error: Exception) -> Exception:
    """What the database or the disk refused, as an error of ours; any other error as it is."""
    if isinstance(error, LLMOSError) or not isinstance(
        error, SQLAlchemyError | sqlite3.Error | OSError
    ):
        return error
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    full = isinstance(cause, OSError) and cause.errno in FULL
    made: StorageError
    if code == sqlite3.SQLITE_FULL or full:
        made = DiskFull("the database cannot grow: the disk is full")
    else:
        # the statement's parameters may hold what must not be shown: the cause alone is
        made = StorageError(f"the database refused: {cause}")
    made.__cause__ = error
    return made


def _engine(path: Path, config: StorageConfig, *, writes: bool) -> Engine:
    engine = create_engine(
        f"sqlite+pysqlite:///{path}",
        connect_args={"check_same_thread": False, "timeout": config.busy_timeout_s},
        **(
            {"poolclass": StaticPool}
            if writes
            else {"poolclass": QueuePool, "pool_size": config.num_readers, "max_overflow": 0}
        ),
        hide_parameters=True,
    )

    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None
        pragmas = ["wal_autocheckpoint = 0", "foreign_keys = ON", "synchronous = FULL"]
        pragmas += ["journal_mode = WAL"] if writes else ["query_only = ON"]
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def open_database(folder: Path, config: StorageConfig | None = None) -> Database:
    """Create or open the database in `folder` (of a locked home) and bring it up to date. Blocking.

    Raises StorageError, DiskFull, ConfigError (a newer release wrote it).
    """
    path = folder / FILENAME
    with mapped(f"opening {path}"):
        # 0600 from the start; SQLite gives its -wal and -shm files the same mode
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = Database(path, config or StorageConfig())
    with contextlib.ExitStack() as undo:
        undo.callback(database.close)
        database.start()
        undo.pop_all()
    return database
