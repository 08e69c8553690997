"""PostgreSQL behind the same two verbs as the home's SQLite: `write` and `read`.

Writes share transactions as in SQLite (`storage.writer`): fewer round trips, and one flush of the
server's log. Other kernels write too, so rows are locked where they are read to be changed; what
PostgreSQL breaks as a deadlock is tried again alone. Driver: psycopg 3.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, select, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import QueuePool

from llmos.errors import ConfigError, DiskFull, PluginError, QueueFull, StorageError
from llmos.storage import migrations
from llmos.storage.config import StorageConfig
from llmos.storage.database import typed
from llmos.storage.tables import boots
from llmos.storage.writer import Writer

T = TypeVar("T")
_LOCK = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('llmos.migrate.' || current_schema, 0))"
)
_FULL = ("53100",)
_AGAIN = ("40001", "40P01")
"""SQLSTATE of disk_full; of serialization_failure and deadlock_detected."""


class PostgresDatabase:
    """An open database. `epoch` counts openings by any kernel. Calls run on its own threads."""

    shared = True

    def __init__(self, url: URL, config: StorageConfig) -> None:
        self.epoch = 0
        self._config = config
        self._engine = _engine(url, config, num_connections=1)
        self._readers = _engine(url, config, num_connections=config.num_readers).execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._writer = Writer(self._engine, self, config, "llmos-pg-writer")
        self._read_threads = ThreadPoolExecutor(
            config.num_readers, thread_name_prefix="llmos-pg-reader"
        )
        self._num_reading = 0
        self._reading_lock = threading.Lock()
        self._closed = False

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """As `Database.write`."""
        return await self._writer.write(fn)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """As `Database.read`."""
        if self._closed:
            raise StorageError("the database is closed")
        with self._reading_lock:
            if self._num_reading >= self._config.max_pending:
                raise QueueFull("too many database calls are waiting", retry_after_s=1.0)
            self._num_reading += 1
        future = self._read_threads.submit(self._read, fn)
        future.add_done_callback(self._done_reading)
        try:
            return await asyncio.wrap_future(future)
        except (DBAPIError, OSError) as error:
            raise self.typed(error) from error

    async def probe(self) -> None:
        """As `Database.probe`."""
        stamp = update(boots).where(boots.c.epoch == self.epoch).values(probed_ns=time.time_ns())
        await self.write(lambda c: c.execute(stamp))

    async def start(self) -> None:
        """Bring the tables up to date and count this opening; one kernel at a time."""
        self.epoch = await self.write(_begin_epoch)

    def close(self) -> None:
        """Finish what was begun, then close. Blocking. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._read_threads.shutdown(wait=True, cancel_futures=True)
        self._readers.dispose()
        self._writer.close(self._engine.dispose)

    def typed(self, error: Exception) -> Exception:
        """See `writer.Backend`."""
        if _sqlstate(error) in _FULL:
            full = DiskFull("the database cannot grow: its disk is full")
            full.__cause__ = error
            return full
        return typed(error)

    def is_open(self, connection: Connection) -> bool:
        """See `writer.Backend`: a savepoint undoes any error but a lost connection."""
        raw: Any = connection.connection.driver_connection
        return not connection.invalidated and raw is not None and not raw.closed

    def may_repeat(self, error: Exception) -> bool:
        """See `writer.Backend`."""
        return _sqlstate(error.__cause__) in _AGAIN

    def committed(self) -> None:
        """See `writer.Backend`."""

    def failed(self) -> None:
        """See `writer.Backend`. The next transaction opens a new connection."""
        self._engine.dispose()

    def _done_reading(self, _: Future[Any]) -> None:
        with self._reading_lock:
            self._num_reading -= 1

    def _read(self, fn: Callable[[Connection], T]) -> T:
        with self._readers.begin() as connection:
            return fn(connection)


def _sqlstate(error: BaseException | None) -> str | None:
    return getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None


def _begin_epoch(connection: Connection) -> int:
    connection.execute(_LOCK)
    if migrations.find_revision(connection) != migrations.HEAD:
        migrations.upgrade(connection)
    last = connection.execute(select(func.max(boots.c.epoch))).scalar() or 0
    connection.execute(insert(boots).values(epoch=last + 1, started_ns=time.time_ns()))
    return int(last) + 1


def _engine(url: URL, config: StorageConfig, *, num_connections: int) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=num_connections,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={"connect_timeout": max(2, round(config.busy_timeout_s))},
        hide_parameters=True,
    )

    def prepare(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {round(config.busy_timeout_s * 1000)}")
            if cursor.execute("SHOW synchronous_commit").fetchone() == ("off",):
                cursor.execute("SET synchronous_commit = on")
        connection.commit()

    event.listen(engine, "connect", prepare)
    return engine


def parse_url(given: str) -> URL:
    """`storage.jobs_url` for our driver. Raises ConfigError, PluginError (extra not installed)."""
    try:
        url = make_url(given)
    except (ArgumentError, ValueError) as error:
        raise ConfigError("storage.jobs_url is no URL", param="storage.jobs_url") from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(
            "storage.jobs_url must begin with postgresql:// (or be empty)",
            param="storage.jobs_url",
        )
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise PluginError(
            "storage.jobs_url needs psycopg: pip install 'llmos[postgres]'"
        ) from error
    return url.set(drivername="postgresql+psycopg")
