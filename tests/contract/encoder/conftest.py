"""Folders of models, as the unit tests have them."""

from __future__ import annotations

from tests.unit.drivers.encoder.conftest import folder_of

__all__ = ["folder_of"]
