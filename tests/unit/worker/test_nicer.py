"""A job leaves processors to others: as a process, and as a session among sessions."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llmos.worker import nicer


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(os, "nice", found.append)
    return found


def test_the_session_is_nicer_too(tmp_path: Path, added: list[int]) -> None:
    group = tmp_path / "autogroup"
    group.write_text("")
    nicer.be_nicer(5, group)
    assert group.read_text() == "5"
    assert added == [5]


def test_a_system_without_them_has_none_afterwards(tmp_path: Path, added: list[int]) -> None:
    nicer.be_nicer(5, tmp_path / "autogroup")
    nicer.be_nicer(5, tmp_path)
    assert not list(tmp_path.iterdir())
    assert added == [5, 5]


class Busy:
    """A file that another has just written to."""

    def __init__(self, path: Path, times: int) -> None:
        self._path, self._times = path, times

    def open(self, mode: str, buffering: int) -> object:
        self._times -= 1
        if self._times >= 0:
            raise BlockingIOError(errno.EAGAIN, "not so often")
        return self._path.open(mode, buffering=buffering)


def test_one_that_takes_no_value_now_is_told_again(
    tmp_path: Path, added: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(nicer.time, "sleep", pauses.append)
    group = tmp_path / "autogroup"
    group.write_text("")
    nicer.be_nicer(7, Busy(group, 2))  # type: ignore[arg-type]
    assert group.read_text() == "7"
    nicer.be_nicer(9, Busy(group, 99))  # type: ignore[arg-type]
    assert group.read_text() == "7"
    assert pauses == [nicer.PAUSE_S] * (2 + nicer.TRIES)
