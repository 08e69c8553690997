"""Fixtures for every suite: the real data, a private home, an environment of our own."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NoReturn

import pytest

from llmos.drivers.catalog import find_missing
from tests.syntax import no_garbage_collected

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = "LLMOS_REQUIRE_DRIVERS"
"""Drivers (comma-separated) whose absence is a failure and no skip."""

KEPT = {"LLMOS_TEST_DATA", "LLMOS_REQUIRE_DATA", REQUIRED}


SLOW = ("system", "browser", "storm", "contract")
"""Folders of tests, the slowest first: where processes share the files out, what is left for the
last of them to do alone is short."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected, and the libraries it imports, live to the end: a collector of garbage that
    walks through them each time takes a tenth of the whole run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first."""
    items.sort(key=_haste)


def _haste(item: pytest.Item) -> int:
    places = (n for n, folder in enumerate(SLOW) if item.nodeid.startswith(f"tests/{folder}/"))
    return next(places, len(SLOW))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, object, object]:
    """Whoever reports a failure parses the source of it (see `tests.syntax`)."""
    with no_garbage_collected():
        return (yield)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the developer's server, key or home."""
    for name in list(os.environ):
        if name.startswith("LLMOS_") and name not in KEPT:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data: `LLMOS_TEST_DATA`, by default `../shared/data`.

    Absent, the test is skipped, or fails where `LLMOS_REQUIRE_DATA` is 1.
    """
    folder = Path(os.environ.get("LLMOS_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "models").is_dir():
        missing(f"no real data in {folder}: set LLMOS_TEST_DATA")
    return folder


def missing(reason: str) -> NoReturn:
    """What a test needs is not on this machine: it is skipped and listed, or fails under CI."""
    if os.environ.get("LLMOS_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require() -> Callable[[str], None]:
    """Ends a test of a driver whose engine is not installed, saying which extra has it."""

    def check(driver: str) -> None:
        reason = find_missing(driver)
        if reason is not None and driver in os.environ.get(REQUIRED, "").split(","):
            pytest.fail(reason)
        if reason is not None:
            pytest.skip(reason)

    return check


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh `LLMOS_HOME` (not made yet), also set in the environment."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LLMOS_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file as a first run leaves it, so that not every test has to migrate."""
    from llmos.storage.database import open_database

    database = open_database(tmp_path_factory.mktemp("migrated"))
    database.close()
    return database.path
