"""One thread, so that training gives the same bits."""

from __future__ import annotations

from tests.unit.pilot.conftest import fixed_torch

__all__ = ["fixed_torch"]
