from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.home import Home, open_home

SMALL = StorageConfig(min_free_bytes=0)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Home]:
    home = open_home(tmp_path / "home")
    yield home
    home.close()


@pytest.fixture
def database(opened: Home, migrated: Path) -> Iterator[Database]:
    shutil.copy(migrated, opened.db)
    database = open_database(opened.db, SMALL)
    yield database
    database.close()


@pytest.fixture
def blobs(opened: Home) -> Blobs:
    return Blobs(opened, SMALL)
