"""A disk that is full or broken for a while, no files left to open, a clock that jumps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.storm import faulting
from tests.storm.faulting import Faults
from tests.storm.powerloss import build
from tests.storm.servers import ServerCell


def check(made: Faults, kinds: tuple[str, ...], cell: ServerCell) -> None:
    """The checker has timed refusals and recoveries; here only that there were some."""
    broken = "\n".join(str(violation) for violation in made.outcome.violations[:10])
    assert not made.outcome.violations, f"{broken}\n{cell.zygote.tail()}"
    for kind in kinds:
        assert made.refused_s[kind], kind
        assert made.recovered_s[kind], kind


def test_a_disk_that_fails_for_a_while(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        missing("the storm's file layer needs gcc")
    cell = ServerCell(tmp_path / "cell", 1, library=build(tmp_path))
    kinds = ("ENOSPC", "EIO")
    check(faulting.storm(cell, kinds, length_s=1.0), kinds, cell)


@pytest.mark.deep
def test_no_file_can_be_opened_for_a_while(tmp_path: Path) -> None:
    cell = ServerCell(tmp_path / "cell", 2)
    check(faulting.storm(cell, ("EMFILE",), length_s=1.0), ("EMFILE",), cell)


@pytest.mark.slow
@pytest.mark.deep
def test_a_clock_that_jumps_an_hour(tmp_path: Path) -> None:
    cell = ServerCell(tmp_path / "cell", 3)
    made = faulting.jump(cell, length_s=0.7)
    broken = "\n".join(str(violation) for violation in made.violations[:10])
    assert not made.violations, f"{broken}\n{cell.zygote.tail()}"
    assert made.kills == 2
    assert made.accepted
