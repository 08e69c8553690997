"""Torch's global switches, put back after each test that needs them set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def fixed_torch() -> Iterator[None]:
    """`train.fix_arithmetic` may be called; the process is as before afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
