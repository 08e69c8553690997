"""Every bug must be caught: `make storm-mutants`.

Bugs planted by hand and mutants made mechanically, in files drawn by a seed, each in a storm of its
own: lives of the mutated code, and the checker. Exit status 1 when one survived without an excuse.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.operators import Mutant, Site, sites_in
from tests.storm.cell import Cell, Stuck
from tests.storm.excuses import EXCUSES
from tests.storm.planted import PLANTS, SRC, Plant, read
from tests.storm.powerloss import build
from tests.storm.servers import ServerCell
from tests.storm.storming import NAMES, TRIALS, Storm, run

FOLDERS = ("storage/jobs", "storage/database.py", "storage/blobs.py", "kernel/jobs")
NOT_STORMED = {
    "cron": "schedules have contract tests; the storm makes none",
    "schedules": "schedules have contract tests; the storm makes none",
    "retention": "nothing in a storm is old enough to be forgotten",
    "postgres": "the hunts are on SQLite",
    "leader": "the hunts are on SQLite, whose home has one kernel",
    "config": "it only holds fields",
    "hub": "followers of logs are not promised to live on",
    "teller": "followers of logs are not promised to live on",
    "view": "it shows jobs to people",
}
"""Modules in which nothing is drawn, each with why."""

LIVED = tuple(name for name in NAMES if not name.startswith(TRIALS))
ROUNDS = (4, 12, 24)
"""Kills in each try at a mutant of the storage; one that is not caught gets the next."""
SERVER_ROUNDS = (4, 8)
STALL_S = 0.35
CALM_S = 20.0
"""Work goes on for ever in some mutants; what has not ended by then is stuck."""


@dataclass(frozen=True)
class Verdict:
    """`caught`: by which broken promise; None: it survived."""

    name: str
    what: str
    caught: str | None
    spent_s: float
    excuse: str | None = None


@dataclass(frozen=True)
class Ground:
    """Where a hunt takes place: on a copy of the sources, so that no edit gets into it."""

    folder: Path
    library: Path
    src: Path
    seed: int


def judge(plant: Plant, mutant: Mutant, ground: Ground) -> Verdict:
    """Storms of rising length, until it is caught."""
    began_s = time.monotonic()
    place = Path(tempfile.mkdtemp(dir=ground.folder))
    source = place / "mutant.json"
    source.write_text(json.dumps({"module": mutant.module, "source": mutant.source}))
    caught = None
    rounds = ROUNDS if plant.level == "work" else SERVER_ROUNDS
    for number, kills in enumerate(rounds):
        caught = _storm(plant, source, ground, ground.seed + number, kills, place / str(number))
        if caught is not None:
            break
    shutil.rmtree(place, ignore_errors=True)
    excuse = EXCUSES.get((mutant.module, mutant.what)) if caught is None else None
    return Verdict(mutant.name, mutant.what, caught, time.monotonic() - began_s, excuse)


def _storm(
    plant: Plant, source: Path, ground: Ground, seed: int, kills: int, place: Path
) -> str | None:
    cell: Cell
    try:
        if plant.level == "work":
            library = ground.library
            cell = Cell("work", place, seed, library=library, mutant=source, src=ground.src)
        else:
            cell = ServerCell(place, seed, mutant=source, src=ground.src)
            cell.start_clients(1, num_clients=6)
    except Stuck as error:
        return f"stuck: {error}".splitlines()[0][:160]
    is_stall = plant.act == "stall"
    storm = Storm(
        kills,
        points=plant.points or LIVED,
        point_share=0.9 if plant.points else 0.6,
        life_s=(0.5, 1.5) if is_stall or plant.level == "serve" else (0.1, 0.5),
        cut_share=1.0 if plant.is_cut else 0.3,
        act=plant.act,
        linger_s=STALL_S if is_stall else 0.05,
        calm_timeout_s=CALM_S,
        extra={"weights": dict(plant.weights)} if plant.weights else {},
    )
    made = run(cell, storm)
    if not made.violations:
        return None
    first = str(made.violations[0]).splitlines()[0]
    return f"{dict(made.by_rule)}: {first}"[:200]


def is_drawn(stem: str) -> bool:
    return stem[0] != "_" and stem not in NOT_STORMED


def modules() -> list[str]:
    """Whose sources may be mutated mechanically, by their full names."""
    paths = [
        path
        for folder in FOLDERS
        for path in ([SRC / "llmos" / folder] if folder.endswith(".py") else [])
        + sorted((SRC / "llmos" / folder).glob("*.py"))
    ]
    return [".".join(p.relative_to(SRC).with_suffix("").parts) for p in paths if is_drawn(p.stem)]


def draw(seed: int, count: int, src: Path = SRC) -> list[tuple[Plant, Mutant]]:
    """Files drawn by a seed, one place in each; a quarter of them in the kernel."""
    chance = random.Random(seed)
    made: list[tuple[Plant, Mutant]] = []
    seen: set[tuple[str, int, int]] = set()
    while len(made) < count:
        wants_kernel = len(made) % 4 == 3
        names = [name for name in modules() if (".kernel." in name) == wants_kernel]
        module = chance.choice(names)
        places = sites_in(module, read(module, src))
        if not places:
            continue
        site: Site = chance.choice(places)
        if (module, site.number, site.choice) in seen:
            continue
        seen.add((module, site.number, site.choice))
        mutant = site.mutant_of(read(module, src))
        level = "serve" if wants_kernel else "work"
        made.append((Plant(mutant.what, module, "", "", level), mutant))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="make storm-mutants", description=__doc__)
    parser.add_argument("--drawn", type=int, default=20, help="mechanical mutants")
    parser.add_argument("--seed", type=int, default=1, help="of the drawing")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--planted", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--only", default="", help="planted ones whose name has this in it")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hunt-", dir=_fast_folder()))
    src = folder / "src"
    try:
        shutil.copytree(SRC, src, ignore=shutil.ignore_patterns("__pycache__"))
        ground = Ground(folder, build(folder), src, given.seed)
        wanted = [(plant, plant.mutant(src)) for plant in PLANTS if given.only in plant.name]
        wanted = wanted if given.planted else []
        wanted += [] if given.only else draw(given.seed, given.drawn, src)
        for level in () if given.only else ("work", "serve"):
            sound = judge(Plant("", "", "", "", level), _none(), ground)
            if sound.caught:
                print(f"the code itself is caught ({level}): {sound.caught}")
                return 2
        verdicts = []
        with ThreadPoolExecutor(given.jobs) as pool:
            for verdict in pool.map(lambda pair: judge(pair[0], pair[1], ground), wanted):
                verdicts.append(verdict)
                print(describe(verdict), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    survived = [v for v in verdicts if v.caught is None and v.excuse is None]
    num_caught = sum(v.caught is not None for v in verdicts)
    print(
        f"{len(verdicts)} bugs: {num_caught} caught, "
        f"{len(verdicts) - num_caught - len(survived)} excused, {len(survived)} survived"
    )
    return 1 if survived else 0


def _none() -> Mutant:
    return Mutant("the code itself", "tests.storm.nothing", "", "nothing changed")


def describe(verdict: Verdict) -> str:
    said = verdict.caught or (f"EXCUSED: {verdict.excuse}" if verdict.excuse else "SURVIVED")
    head = f"{verdict.spent_s:5.1f} s  {verdict.name}"
    if verdict.what != verdict.name:
        head += f": {verdict.what}"
    return f"{head}\n         {said}"


def _fast_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    sys.exit(main())
