from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos.storage import Blobs, Database, Home, StorageConfig, open_database, open_home

SMALL = StorageConfig(min_free_bytes=0)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Home]:
    home = open_home(tmp_path / "home")
    yield home
    home.close()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database file as a first run leaves it, so that not every test has to migrate."""
    folder = tmp_path_factory.mktemp("migrated")
    database = open_database(folder, SMALL)
    database.close()
    return database.path.read_bytes()


@pytest.fixture
def database(opened: Home, migrated: bytes) -> Iterator[Database]:
    (opened.db / "llmos.db").write_bytes(migrated)
    (opened.db / "llmos.db").chmod(0o600)
    database = open_database(opened.db, SMALL)
    yield database
    database.close()


@pytest.fixture
def blobs(opened: Home) -> Blobs:
    return Blobs(opened, SMALL)
