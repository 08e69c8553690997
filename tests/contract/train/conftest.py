"""Runs in the tests' own process leave its memory as it is: others measure theirs there."""

from __future__ import annotations

import pytest

from llmos.programs.train import heap


@pytest.fixture(autouse=True)
def untouched_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "keep_freed", lambda: True)
    monkeypatch.setattr(heap, "keep_few_shapes", lambda: None)
