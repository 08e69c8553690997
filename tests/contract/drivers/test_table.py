"""The table of drivers leaves nobody out."""

from __future__ import annotations

from pathlib import Path

from llmos.drivers.catalog import DRIVERS
from tests.contract.drivers.__main__ import BEGIN, rows_of
from tests.contract.drivers.kits import ITEM_KITS, KITS
from tests.contract.drivers.verbs import ITEM_DRIVERS, VERBS


def test_every_driver_has_a_kit() -> None:
    assert KITS.keys() | ITEM_KITS.keys() == set(DRIVERS)
    assert not KITS.keys() & ITEM_KITS.keys()
    assert sorted(ITEM_KITS) == sorted(ITEM_DRIVERS)


def test_the_committed_table_has_every_driver_and_verb(repository: Path) -> None:
    text = (repository / "docs" / "drivers.md").read_text()
    assert BEGIN in text
    rows = rows_of(text)
    assert set(rows) == set(DRIVERS)
    for driver, cells in rows.items():
        assert len(cells) == 1 + len(VERBS), driver
        assert not any("failed" in cell or not cell for cell in cells), driver
