"""The generic forward over a description gives Transformers' own logits, for each architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.drivers.native.fused.families import FAMILIES
from tests.unit.drivers.fused.compare import worst


@pytest.mark.parametrize("architecture", FAMILIES)
def test_logits(architecture: str, tmp_path: Path) -> None:
    assert worst(architecture, tmp_path) <= 1e-5
