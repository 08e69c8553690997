from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmos.storage import tmpfs
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.home import Home, open_home
from llmos.storage.tables import jobs

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


@pytest.fixture
def shm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory that stands for the one all users share."""
    if not tmpfs.SHARED.is_dir() or not tmpfs._is_tmpfs(tmpfs.SHARED.stat().st_dev):
        pytest.skip("this machine shares no memory as files")
    folder = Path(tempfile.mkdtemp(dir=tmpfs.SHARED))
    monkeypatch.setattr(tmpfs, "SHARED", folder)
    yield folder
    shutil.rmtree(folder)


def job_row(**fields: Any) -> dict[str, Any]:
    """A row of `jobs` in which every column that must have a value has a plain one."""
    columns = [column for column in jobs.c if not column.nullable]
    return {c.name: c.type.python_type() for c in columns} | fields
