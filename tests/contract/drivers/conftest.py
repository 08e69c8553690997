from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.drivers.kits import KITS
from tests.contract.drivers.subject import Subject, open_subject
from tests.contract.drivers.verbs import SUBJECTS, driver_of

FolderOf = Callable[[str], Path]


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


@pytest.fixture(params=sorted(KITS))
def driver_name(request: pytest.FixtureRequest, require: Callable[[str], None]) -> str:
    """Every driver that generates and is installed."""
    name: str = request.param
    require(name)
    return name


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Subject]]:
    """Of drivers that load slowly, one that is loaded, from test to test."""
    made: dict[str, Subject] = {}
    yield made
    for subject in made.values():
        subject.driver.unload()


@pytest.fixture(params=SUBJECTS)
def subject(
    request: pytest.FixtureRequest,
    require: Callable[[str], None],
    folder_of: FolderOf,
    tmp_path: Path,
    loaded: dict[str, Subject],
) -> Iterator[Subject]:
    import torch

    name = driver_of(request.param)
    require(name)
    num_threads = torch.get_num_threads()
    made = loaded.pop(request.param, None)
    if made is None or not made.is_idle():
        made = open_subject(request.param, folder_of(name), tmp_path)
    made.num_prepared = 0
    yield made
    if made.kit.is_slow and made.is_idle():
        loaded[request.param] = made
    else:
        made.driver.unload()
    torch.set_num_threads(num_threads)
