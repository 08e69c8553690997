"""The table drivers × verbs: `python -m tests.contract.drivers [--write] [pytest arguments]`.

Runs the suite and counts, for each driver and verb, what passed. `--write` puts the rows into
`docs/drivers.md`; the row of a driver whose engine is not installed here, or that no test ran of
(`-k vllm`), stays as it is there.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from llmos import __version__
from llmos.drivers.catalog import DRIVERS, find_missing
from llmos.drivers.environments import find_version
from tests.contract.drivers.verbs import VERBS, driver_of, undeclared

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[2] / "docs" / "drivers.md"
BEGIN, END = "<!-- table of drivers: begin -->", "<!-- table of drivers: end -->"


class Tally:
    """A pytest plugin: outcomes by driver and verb."""

    def __init__(self) -> None:
        self._cells: dict[str, tuple[str, str]] = {}
        self.outcomes: dict[tuple[str, str], Counter[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            params = getattr(item, "callspec", None)
            mark = item.get_closest_marker("verb")
            if params is None or mark is None:
                continue
            named = (params.params.get(name) for name in ("subject", "driver_name", "items"))
            driver = next(filter(None, named))
            assert mark.args[0] in VERBS, item.nodeid
            self._cells[item.nodeid] = driver_of(driver), mark.args[0]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        cell = self._cells.get(report.nodeid)
        if cell is None or (report.when != "call" and report.passed):
            return
        self.outcomes.setdefault(cell, Counter())[report.outcome] += 1

    def row(self, driver: str) -> list[str]:
        """Engine, then a cell for each verb."""
        missing = find_missing(driver)
        if missing is not None:
            return [missing, *("absent" for _ in VERBS)]
        return [engine_of(driver), *(self._cell(driver, verb) for verb in VERBS)]

    def _cell(self, driver: str, verb: str) -> str:
        found = self.outcomes.get((driver, verb), Counter())
        if not found:
            return undeclared(driver, verb) or "no test ran"
        if found["failed"] or found["skipped"]:
            return f"{found['failed']} failed, {found['skipped']} skipped of {found.total()}"
        return f"{found['passed']} passed"


def engine_of(driver: str) -> str:
    """What it runs on, with the version: the first distribution names the engine."""
    spec = DRIVERS[driver]
    found = [find_version(names, spec.python) for names in spec.distributions[:1]]
    return ", ".join(filter(None, found)) or f"llmos {__version__}"


def render(rows: dict[str, list[str]]) -> str:
    """As Markdown, one row a driver."""
    head = ["driver", "engine", *VERBS]
    lines = [head, ["---"] * len(head), *([name, *rows[name]] for name in sorted(rows))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows_of(page: str) -> dict[str, list[str]]:
    """The rows of a page that has the table: name to engine and cells."""
    table = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    found = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table]
    return {cells[0]: cells[1:] for cells in found}


def write(rows: dict[str, list[str]], ran: set[str]) -> None:
    """Into the page; what is absent here, or did not run, keeps its row."""
    text = PAGE.read_text()
    kept = rows_of(text)
    for name in rows:
        if (find_missing(name) is not None or name not in ran) and name in kept:
            rows[name] = kept[name]
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{render(rows)}\n{END}{after}")


def main(arguments: list[str]) -> int:
    """pytest's exit status."""
    tally = Tally()
    rest = [argument for argument in arguments if argument != "--write"]
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-m", "verb", str(HERE), *rest], [tally])
    rows = {driver: tally.row(driver) for driver in DRIVERS}
    print(f"\n{render(rows)}")
    if "--write" in arguments and code == 0:
        write(rows, {driver for driver, _ in tally.outcomes})
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
