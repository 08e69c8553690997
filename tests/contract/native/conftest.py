"""A tiny model, and drivers that hold it, as the unit tests have them."""

from __future__ import annotations

from tests.unit.drivers.conftest import load, loaded_drivers, tiny

__all__ = ["load", "loaded_drivers", "tiny"]
