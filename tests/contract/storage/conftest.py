"""A home, its database and its blobs, as the unit tests have them."""

from __future__ import annotations

from tests.unit.storage.conftest import blobs, database, opened, shm

__all__ = ["blobs", "database", "opened", "shm"]
