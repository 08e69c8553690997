from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmos.drivers.catalog import DRIVERS, find_missing
from tests.contract.drivers.kits import KITS
from tests.contract.drivers.subject import Subject, open_subject

REQUIRED = "LLMOS_REQUIRE_DRIVERS"
"""Drivers (comma-separated) whose absence is a failure and no skip."""

FolderOf = Callable[[str], Path]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REQUIRED] = {n for n in os.environ.get(REQUIRED, "").split(",") if n}


_REQUIRED = pytest.StashKey[set[str]]()


@pytest.fixture
def require(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Ends a test of a driver whose engine is not installed, saying which extra has it."""

    def check(name: str) -> None:
        missing = find_missing(name)
        if missing is not None and name in request.config.stash[_REQUIRED]:
            pytest.fail(missing)
        if missing is not None:
            pytest.skip(missing)

    return check


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    """A driver's small model, made once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"model-{name}")
            KITS[name].make_model(made[name])
        return made[name]

    return folder


@pytest.fixture(params=sorted(DRIVERS))
def driver_name(request: pytest.FixtureRequest, require: Callable[[str], None]) -> str:
    """Every driver that is installed."""
    name: str = request.param
    require(name)
    return name


@pytest.fixture(params=sorted(DRIVERS))
def subject(
    request: pytest.FixtureRequest,
    require: Callable[[str], None],
    folder_of: FolderOf,
    tmp_path: Path,
) -> Iterator[Subject]:
    import torch

    require(request.param)
    num_threads = torch.get_num_threads()
    made = open_subject(request.param, folder_of(request.param), tmp_path)
    yield made
    made.driver.unload()
    torch.set_num_threads(num_threads)
