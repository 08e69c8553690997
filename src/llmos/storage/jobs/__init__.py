"""The JobStore on SQLAlchemy Core. Knows no programs and starts nothing.

`open_job_store` gives the store; its `database` is where files, requests and keys of idempotency
are recorded too (the home's SQLite, or the PostgreSQL of `storage.jobs_url`).
"""

from __future__ import annotations

from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database
from llmos.storage.home import Home
from llmos.storage.jobs.exports import Exporter
from llmos.storage.jobs.store import SqlJobStore, Transactions

__all__ = ["SqlJobStore", "Transactions", "close_job_store", "open_job_store"]


async def open_job_store(
    home: Home, database: Database, blobs: Blobs, config: StorageConfig
) -> SqlJobStore:
    """The store of this home. Raises StorageError, ConfigError (`jobs_url`), PluginError (the
    extra is missing)."""
    return SqlJobStore(database, Exporter(home.scratch, blobs), blobs, config)


async def close_job_store(store: SqlJobStore) -> None:
    """Close what `open_job_store` opened, not what it was given. Idempotent."""
