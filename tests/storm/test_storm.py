"""The storm's short form; `make storm` is the long one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.postgres import Postgres, find_programs
from tests.storm.cell import Cell
from tests.storm.powerloss import build
from tests.storm.servers import ServerCell
from tests.storm.storming import NAMES, TRIALS, Outcome, Storm, run

LIVED = tuple(name for name in NAMES if not name.startswith(TRIALS))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        missing("the storm's file layer needs gcc")
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    programs = find_programs()
    if programs is None:
        missing("PostgreSQL is not installed: apt install postgresql")
    server = Postgres(programs)
    yield server
    server.remove()


def check(made: Outcome, cell: Cell, num_kills: int, accepted: int) -> None:
    broken = "\n".join(str(violation) for violation in made.violations[:20])
    assert not made.violations, f"{broken}\n{cell.zygote.tail()}"
    assert made.kills >= num_kills
    assert made.accepted >= accepted, dict(made.counts)


def test_the_store_keeps_its_promises_through_power_cuts(tmp_path: Path, library: Path) -> None:
    cell = Cell("work", tmp_path / "cell", seed=7, library=library)
    made = run(cell, Storm(12, life_s=(0.1, 0.5), points=tuple(NAMES), cut_share=0.7))
    check(made, cell, 12, 50)
    assert made.cuts >= 3


def test_the_server_keeps_its_promises(tmp_path: Path, library: Path) -> None:
    """Over HTTP, with workers; one of the kills at least takes the power along."""
    cell = ServerCell(tmp_path / "cell", seed=11, library=library)
    cell.start_clients(1, num_clients=6)
    made = run(cell, Storm(4, life_s=(0.4, 1.0), points=LIVED, point_share=0.3, cut_share=0.7))
    check(made, cell, 4, 50)
    assert made.cuts >= 1


def test_the_store_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    cell = Cell("work", tmp_path / "cell", seed=5, url=postgres.create("storm"))
    made = run(cell, Storm(5, life_s=(0.2, 0.6), points=LIVED))
    check(made, cell, 5, 20)
