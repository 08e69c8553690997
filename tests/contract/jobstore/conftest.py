"""Every implementation of the JobStore: SQLite always, PostgreSQL where its programs are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.storage.database import open_database
from tests.contract.jobstore.world import Scenario, World, play


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with all tables and nothing in it: migrating takes a while."""
    folder = tmp_path_factory.mktemp("migrated")
    open_database(folder).close()
    return folder / "llmos.db"


@pytest.fixture(params=["sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> Callable[..., World]:
    """Makes a world: config fields of `storage` as keywords."""
    home = tmp_path / "home"
    (home / "db").mkdir(parents=True)
    (home / "format").write_text("1\n")
    (home / "db" / "llmos.db").write_bytes(migrated.read_bytes())
    return functools.partial(World, home, "")


@pytest.fixture
def run(make: Callable[..., World]) -> Callable[[Scenario], None]:
    """Plays a scenario in a fresh world."""
    return functools.partial(play, make)
