"""The JobStore on SQLAlchemy Core. Knows no programs and starts nothing.

`open_job_store` gives the store; its `database` is where files, requests and keys of idempotency
are recorded too (the home's SQLite, or the PostgreSQL of `storage.jobs_url`):
`SqlRequestLog(store.database, config)`, to be closed before the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database
from llmos.storage.home import Home
from llmos.storage.jobs.exports import Exporter
from llmos.storage.jobs.requests import SqlRequestLog
from llmos.storage.jobs.store import SqlJobStore, Transactions

if TYPE_CHECKING:  # it needs an extra
    from llmos.storage.jobs.leader import Leader

__all__ = [
    "SqlJobStore",
    "SqlRequestLog",
    "Transactions",
    "close_job_store",
    "open_job_store",
]


async def open_job_store(
    home: Home, database: Database, blobs: Blobs, config: StorageConfig
) -> SqlJobStore:
    """The store of this home, or of `config.jobs_url`; then it is known, too, who leads.

    Close it with `close_job_store`, before the home's database. Raises StorageError, ConfigError
    (`jobs_url`), PluginError (the extra is missing).
    """
    exporter = Exporter(home.scratch, blobs)
    if not config.jobs_url:
        return SqlJobStore(database, exporter, blobs, config)
    return await _open_shared(exporter, blobs, config)


async def _open_shared(exporter: Exporter, blobs: Blobs, config: StorageConfig) -> SqlJobStore:
    from llmos.storage.jobs.postgres import PostgresDatabase, parse_url

    url = parse_url(config.jobs_url)
    from llmos.storage.jobs.leader import Leader

    database = PostgresDatabase(url, config)
    store = SqlJobStore(database, exporter, blobs, config)
    try:
        await database.start()

        def make(take: Callable[[], Awaitable[None]], wake: Callable[[], None]) -> Leader:
            return Leader(url, take, wake)

        await store.follow(make)
    except BaseException:
        await close_job_store(store)
        raise
    return store


async def close_job_store(store: SqlJobStore) -> None:
    """Stop leading and close what `open_job_store` opened, not what it was given. Idempotent."""
    await store.close()
    if store.database.shared:
        await asyncio.to_thread(store.database.close)
