"""A registry, and a stand-in for the hub, as the unit tests have them."""

from __future__ import annotations

from tests.unit.registry.conftest import _patient_client, hub, world

__all__ = ["_patient_client", "hub", "world"]
