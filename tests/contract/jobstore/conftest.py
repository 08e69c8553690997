"""Every implementation of the JobStore: SQLite always, PostgreSQL where its programs are.

Where they are not, its tests are skipped and listed, or fail if LLMOS_REQUIRE_DATA is 1.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmos.storage.config import StorageConfig
from llmos.storage.jobs.postgres import PostgresDatabase, parse_url
from tests.contract.jobstore.world import Scenario, World, play
from tests.postgres import Postgres, find_programs

_numbers = itertools.count()
TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """One PostgreSQL for all tests; each has a database of its own."""
    programs = find_programs()
    if programs is None:
        reason = "PostgreSQL is not installed: apt install postgresql"
        if os.environ.get("LLMOS_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    made = Postgres(programs)
    try:
        asyncio.run(_migrate(made.create(TEMPLATE)))
        yield made
    finally:
        made.remove()


async def _migrate(url: str) -> None:
    database = PostgresDatabase(parse_url(url), StorageConfig())
    await database.start()
    database.close()


@pytest.fixture
def postgres_url(server: Postgres) -> Iterator[str]:
    """A database with all tables and nothing in it."""
    name = f"t{next(_numbers)}"
    yield server.create(name, TEMPLATE)
    server.drop(name)


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> Callable[..., World]:
    """Makes a world: config fields of `storage` as keywords."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return functools.partial(World, fresh_home(tmp_path / "home", migrated), url)


@pytest.fixture(params=["sqlite", "postgres"])
def histories(
    request: pytest.FixtureRequest, tmp_path: Path, migrated: Path
) -> Callable[[], World]:
    """Makes a new world, in a database of its own, at each call."""
    numbers = itertools.count()
    server: Postgres | None = None
    if request.param == "postgres":
        server = request.getfixturevalue("server")

    def fresh() -> World:
        url = server.create(f"h{next(_numbers)}", TEMPLATE) if server else ""
        return World(fresh_home(tmp_path / f"home{next(numbers)}", migrated), url)

    return fresh


def fresh_home(home: Path, migrated: Path) -> Path:
    """A home that need not migrate."""
    (home / "db").mkdir(parents=True)
    (home / "format").write_text("1\n")
    (home / "db" / "llmos.db").write_bytes(migrated.read_bytes())
    return home


@pytest.fixture
def run(make: Callable[..., World]) -> Callable[[Scenario], None]:
    """Plays a scenario in a fresh world."""
    return functools.partial(play, make)
