"""Small matrices: a second thread would only wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.native.conftest import load, loaded_drivers, tiny

__all__ = ["load", "loaded_drivers", "tiny"]
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
