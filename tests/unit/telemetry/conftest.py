"""Who takes traces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.telemetry.collector import Received


@pytest.fixture
def collector() -> Iterator[Received]:
    received = Received(200)
    yield received
    received.close()
