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


@pytest.fixture(scope="session")
def loaded_drivers() -> dict[str, Any]:
    """Drivers by what they hold; a test leaves them idle."""
    return {}


@pytest.fixture
def load(loaded_drivers: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """A NativeDriver that holds a folder; `spec` fields may be given. `fresh`: of its own."""
    import torch

    from llmos.drivers.native.driver import NativeDriver

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def loaded(folder: Path, *, fresh: bool = False, **fields: Any) -> NativeDriver:
        key = f"{folder} {sorted(fields.items())}"
        driver: NativeDriver | None = None if fresh else loaded_drivers.get(key)
        if driver is None:
            driver = NativeDriver()
            driver.load(make_spec(folder, **fields), lambda fraction, what: None)
            loaded_drivers[key] = driver
        return driver

    yield loaded
    for driver in loaded_drivers.values():
        for request in list(driver._seats):
            driver._seats.remove(request)
        driver._outbox.clear()
    torch.set_num_threads(num_threads)
