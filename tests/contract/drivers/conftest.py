from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos.drivers.catalog import DRIVERS
from tests.contract.drivers.subject import Subject, open_subject
from tests.unit.drivers.tiny import make_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conformance")
    make_model(folder)
    return folder


@pytest.fixture(params=sorted(DRIVERS))
def subject(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path: Path) -> Iterator[Subject]:
    import torch

    num_threads = torch.get_num_threads()
    made = open_subject(request.param, tiny_folder, tmp_path)
    yield made
    made.driver.unload()
    torch.set_num_threads(num_threads)
