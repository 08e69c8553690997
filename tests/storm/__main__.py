"""`make storm`: real servers killed again and again, and every promise checked.

Two storms: one on the storage alone (many lives a second, workers that report late and twice), one
on whole servers with HTTP clients. Exit status 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from tests.postgres import Postgres, find_programs
from tests.storm.cell import Cell
from tests.storm.powerloss import build
from tests.storm.servers import ServerCell
from tests.storm.storming import NAMES, TRIALS, Outcome, Storm, run

BROKEN = {
    "lost": ("lost", "changed", "needs", "cancelled", "epoch", "file", "disk", "error", "fault"),
    "duplicated": ("duplicated", "results", "attempt"),
    "stuck": ("stuck",),
}
"""The three columns of the table, and the rules that count into each."""


@dataclass
class Total:
    """What all cells of one level came to."""

    level: str
    store: str
    accepted: int = 0
    kills: int = 0
    cuts: int = 0
    worker_kills: int = 0
    took_s: float = 0.0
    longest_calm_s: float = 0.0
    points: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, made: Outcome, worker_kills: int) -> None:
        self.accepted += made.accepted
        self.kills += made.kills
        self.cuts += made.cuts
        self.worker_kills += worker_kills
        self.longest_calm_s = max(self.longest_calm_s, made.calm_s)
        self.points += made.points
        self.reached += made.reached
        self.rules += made.by_rule
        self.examples += [str(violation)[:2000] for violation in made.violations[:20]]

    def facts(self) -> dict[str, object]:
        """JSON-able."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: dict(v) if isinstance(v, Counter) else v for k, v in found.items()}

    def column(self, name: str) -> int:
        return sum(self.rules[rule] for rule in BROKEN[name])


@dataclass(frozen=True)
class Options:
    accepted: int
    kills: int
    seconds: float
    seed: int
    store: str
    power: str
    level: str
    cells: int

    def storm(self, level: str, kills: int, until_s: float) -> Storm:
        points = tuple(n for n in NAMES if self.store == "sqlite" or not n.startswith(TRIALS))
        share = {"kill": 0.0, "cut": 1.0, "mixed": 0.4}[self.power]
        if level == "store":
            return Storm(kills, points=points, cut_share=share, until_s=until_s)
        return Storm(
            kills,
            points=points,
            point_share=0.5,
            life_s=(0.2, 2.5),
            cut_share=share,
            until_s=until_s,
        )


@contextlib.contextmanager
def databases(store: str, num: int) -> Iterator[list[str]]:
    """URLs of so many empty databases, "" for SQLite."""
    if store == "sqlite":
        yield [""] * num
        return
    programs = find_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed: apt install postgresql")
    server = Postgres(programs, durable=True)
    try:
        yield [server.create(f"storm{i}") for i in range(num)]
    finally:
        server.remove()


def storm_level(level: str, options: Options, folder: Path, library: Path | None) -> Total:
    """All cells of a level beside each other."""
    total = Total(level, options.store)
    began_s = time.monotonic()
    until_s = began_s + options.seconds
    killed: Counter[str] = Counter()
    lock = threading.Lock()

    def one(number: int, url: str) -> None:
        seed = options.seed * 100 + number
        place = folder / f"{level}-{number}"
        # on every second cell the kernel is only killed: the file layer costs time
        layer = library if options.power == "cut" or number % 2 == 0 else None
        cell: Cell
        if level == "store":
            cell = Cell("work", place, seed, library=layer, url=url)
        else:
            cell = ServerCell(place, seed, library=layer, url=url)
            cell.start_clients(2)
        try:
            made = run(cell, options.storm(level, options.kills // options.cells, until_s), killed)
        except Exception as error:  # of the tester itself: it must not look like success
            made = Outcome()
            made.add("stuck", f"the storm broke down: {error!r}")
        with lock:
            total.add(made, getattr(cell, "workers_killed", 0))
        print(f"{level}-{number}: {summary(made)}", flush=True)

    with databases(options.store, options.cells) as urls:
        threads = [
            threading.Thread(target=one, args=pair, name=f"{level}-{pair[0]}")
            for pair in enumerate(urls)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    total.took_s = time.monotonic() - began_s
    return total


def summary(made: Outcome) -> str:
    return (
        f"{made.accepted} accepted, {made.kills} kills, {made.cuts} cuts, "
        f"{dict(made.by_rule) or 'no promise broken'}, {made.took_s:.0f} s"
    )


def table(totals: list[Total]) -> str:
    lines = ["level   store     accepted   kills    cuts workers  lost duplicated stuck     s   /s"]
    lines += [
        f"{t.level:<7} {t.store:<8} {t.accepted:>9} {t.kills:>7} {t.cuts:>7} "
        f"{t.worker_kills:>7} {t.column('lost'):>5} {t.column('duplicated'):>10} "
        f"{t.column('stuck'):>5} {t.took_s:>5.0f} {t.accepted / max(t.took_s, 1e-9):>4.0f}"
        for t in totals
    ]
    lines += ["", f"{'crash point':<36} {'reached':>9} {'killed at':>9}"]
    reached = sum((t.reached for t in totals), Counter[str]())
    points = sum((t.points for t in totals), Counter[str]())
    lines += [f"{name:<36} {reached[name]:>9} {points[name]:>9}" for name in NAMES]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make storm", description=__doc__)
    parser.add_argument("--accepted", type=int, default=0, help="so many in all, at least (0: any)")
    parser.add_argument("--kills", type=int, default=1000, help="so many in each level")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most, levels together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--power", choices=("kill", "cut", "mixed"), default="mixed")
    parser.add_argument("--level", choices=("store", "server", "both"), default="both")
    parser.add_argument("--cells", type=int, default=2, help="homes beside each other")
    parser.add_argument("--folder", type=Path, help="where homes are made; kept if it is named")
    parser.add_argument("--result", type=Path, help="where to write the totals as JSON")
    given = parser.parse_args()
    levels = ("store", "server") if given.level == "both" else (given.level,)
    options = Options(
        given.accepted,
        given.kills,
        given.seconds / len(levels),
        given.seed,
        given.store,
        given.power,
        given.level,
        given.cells,
    )
    folder = given.folder or Path(tempfile.mkdtemp(prefix="storm-", dir=_fast_folder()))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        library = None if options.power == "kill" else build(folder)
        totals = [storm_level(level, options, folder, library) for level in levels]
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(table(totals))
    for total in totals:
        for example in total.examples:
            print(f"BROKEN ({total.level}): {example}")
    if given.result:
        given.result.write_text(json.dumps([total.facts() for total in totals], indent=1) + "\n")
    too_few = sum(t.accepted for t in totals) < options.accepted
    if too_few:
        print(f"fewer than {options.accepted} were accepted in the time there was")
    return 1 if too_few or any(total.rules for total in totals) else 0


def _fast_folder() -> str | None:
    """Memory, where there is some: what an fsync means is up to the file layer here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    sys.exit(main())
