from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file as a first run leaves it, so that not every test has to migrate."""
    from llmos.storage.database import open_database

    database = open_database(tmp_path_factory.mktemp("migrated"))
    database.close()
    return database.path
