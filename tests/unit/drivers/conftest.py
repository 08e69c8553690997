"""One tiny model on disk, and drivers that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.drivers.tiny import make_model, make_spec


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama."""
    folder = tmp_path_factory.mktemp("tiny")
    make_model(folder)
    return folder


@pytest.fixture
def load() -> Iterator[Callable[..., Any]]:
    """Loads a folder into a NativeDriver; `spec` fields may be given."""
    import torch

    from llmos.drivers.native.driver import NativeDriver

    num_threads = torch.get_num_threads()
    drivers = []

    def loaded(folder: Path, **fields: Any) -> NativeDriver:
        driver = NativeDriver()
        driver.load(make_spec(folder, **fields), lambda fraction, what: None)
        drivers.append(driver)
        return driver

    yield loaded
    for driver in drivers:
        driver.unload()
    torch.set_num_threads(num_threads)
