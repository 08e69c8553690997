"""Alembic scripts, run by `open_database`. Alembic is imported only to change something."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

from llmos.errors import ConfigError

HEAD = "0006"
"""The newest revision under `versions/` (a test holds it to that)."""


def find_revision(connection: Connection) -> str | None:
    """The revision the database is at, None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Up to a revision, inside the caller's transaction. Raises ConfigError for an unknown one."""
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise ConfigError(
            f"the database is at a revision this release does not know: {error}"
        ) from error
