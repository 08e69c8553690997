"""A storm on one cell: lives drawn by a seed, then calm, then the checker."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from tests.storm import snapshot
from tests.storm.cell import Cell, Stuck
from tests.storm.check import Checker, Violation
from tests.storm.history import read
from tests.storm.hook import NAMES, Plan
from tests.storm.servers import ServerCell

CALM_TIMEOUT_S = 120.0
NO_BACKUP = 3


@dataclass
class Outcome:
    """What a storm came to."""

    accepted: int = 0
    kills: int = 0
    cuts: int = 0
    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0
    calm_s: float = 0.0

    def add(self, rule: str, text: str) -> None:
        self.violations.append(Violation(rule, text))

    @property
    def by_rule(self) -> Counter[str]:
        return Counter(violation.rule for violation in self.violations)


@dataclass(frozen=True)
class Storm:
    """How to storm. `life_s`: bounds of a life's length; `points`: where to kill, `point_share`
    how often there and not at a random time; `cut_share`: how many kills are power cuts."""

    num_kills: int
    life_s: tuple[float, float] = (0.05, 0.6)
    points: tuple[str, ...] = ()
    point_share: float = 0.6
    cut_share: float = 0.0
    until_s: float = float("inf")
    linger_s: float = 0.03
    act: str = "kill"
    calm_timeout_s: float = CALM_TIMEOUT_S
    worker_share: float = 0.3
    """In how many lives of a server one of its workers is killed, too."""
    extra: dict[str, object] = field(default_factory=dict)
    """Further words of every order."""


TRIALS = ("database.migrate.", "restore.")
"""Points that no life reaches: they are tried on homes of their own."""


def run(cell: Cell, storm: Storm, killed: Counter[str] | None = None) -> Outcome:
    """Until so many kills are done (or time is up); the outcome, checked. `killed`: how often each
    point has been killed at, which several cells may share: the rarest are next."""
    began_s = time.monotonic()
    made = Outcome()
    killed = killed if killed is not None else Counter()
    try:
        while cell.kills < storm.num_kills and time.monotonic() < storm.until_s:
            plan = _plan(cell, storm, killed)
            if plan.point.startswith(TRIALS):
                made.violations += trial(cell, plan)
            else:
                life(cell, storm, plan)
        made.calm_s = calm(cell, storm)
    except Stuck as error:
        made.violations.append(Violation("stuck", str(error)))
    finally:
        cell.close()
    made.kills, made.cuts = cell.kills, cell.cuts
    judge(cell, made)
    made.took_s = time.monotonic() - began_s
    return made


def _plan(cell: Cell, storm: Storm, killed: Counter[str]) -> Plan:
    """Where to kill in the next life: nowhere in particular, or at one of the rarest points."""
    random = cell.random
    if not storm.points or random.random() >= storm.point_share:
        return Plan()
    point = min(storm.points, key=lambda name: (killed[name] + random.random() * 4, name))
    killed[point] += 1
    linger_s = random.choice((0.0, storm.linger_s)) if storm.act == "kill" else storm.linger_s
    return Plan(point, 1 + int(random.expovariate(_rate(point))), storm.act, linger_s)


def life(cell: Cell, storm: Storm, plan: Plan) -> None:
    """One life, to its kill."""
    random = cell.random
    length_s = random.uniform(*storm.life_s)
    if plan.point:
        length_s = max(storm.life_s[1], 0.5)
    backups = cell.folder / "backups"
    backups.mkdir(exist_ok=True)
    at_once = plan.point.startswith(("backup", "blobs.sweep", "housekeeping"))
    cell.start(plan, backups=str(backups), backup_at_once=at_once, **storm.extra)
    if cell.wait_ready():
        if isinstance(cell, ServerCell) and random.random() < storm.worker_share:
            cell.wait_ended(length_s / 2)
            cell.kill_worker()
        if isinstance(cell, ServerCell) and plan.point.startswith("backup"):
            cell.ask("POST", "/os/v1/backup", {"path": str(backups / str(cell.lives))})
        cell.wait_ended(length_s)
    cell.kill()
    if cell.disk is not None and random.random() < storm.cut_share:
        cell.cut(random if random.random() < 0.5 else None)


def trial(cell: Cell, plan: Plan) -> list[Violation]:
    """An upgrade or a restore, killed and done again: then the home must be whole."""
    home = cell.folder / f"trial-{cell.lives}"
    order: dict[str, str] = {"trial": "open", "home": str(home)}
    if plan.point.startswith("restore"):
        sealed = sorted(cell.folder.glob("backups/*/manifest.sha256"))
        if not sealed:
            return []
        order |= {"trial": "restore", "source": str(cell.random.choice(sealed).parent)}
    found: list[Violation] = []
    # to be moved aside, there must be a home
    plans = (Plan(), plan, Plan()) if plan.point == "restore.home.aside" else (plan, Plan())
    for one in plans:
        cell.start(one, **order)
        if not cell.wait_ended(CALM_TIMEOUT_S):
            raise Stuck(f"{order['trial']} does not end")
        if cell.ended == NO_BACKUP:
            break
        if cell.ended == -signal.SIGKILL:
            cell.kill()
        elif cell.ended != 0:
            raise Stuck(f"{order['trial']} ended with {cell.ended}:\n{cell.zygote.tail()}")
    else:
        what = f"after a kill at {plan.point}"
        found = [Violation("disk", f"{what}: {line}") for line in take(home, "").damage]
    for left in cell.folder.glob(f"{home.name}*"):
        shutil.rmtree(left)
    return found


def _rate(point: str) -> float:
    """Of what happens at every commit, a later one as well as the first."""
    return 0.1 if point.startswith("database.group") else 1.5


def calm(cell: Cell, storm: Storm) -> float:
    """No more kills: all that was accepted must end. Seconds it took."""
    began_s = time.monotonic()
    cell.marks.mark("calm")
    if isinstance(cell, ServerCell):
        _calm_server(cell, storm.calm_timeout_s)
        return time.monotonic() - began_s
    cell.start(Plan(), drain=True, **storm.extra)
    if not cell.wait_ready():
        raise Stuck(f"the last server ended with {cell.ended}:\n{cell.zygote.tail()}")
    if not cell.wait_ended(storm.calm_timeout_s):
        raise Stuck(f"not all had ended {storm.calm_timeout_s} s after the last kill")
    if cell.ended != 0:
        raise Stuck(f"the last server ended with {cell.ended}:\n{cell.zygote.tail()}")
    return time.monotonic() - began_s


def _calm_server(cell: ServerCell, timeout_s: float) -> None:
    cell.start(Plan())
    if not cell.wait_ready():
        raise Stuck(f"the last server ended with {cell.ended}:\n{cell.zygote.tail()}")
    calm_down(cell, timeout_s)


def calm_down(cell: ServerCell, timeout_s: float = CALM_TIMEOUT_S) -> None:
    """The clients have all their answers, the jobs end, the server is stopped."""
    cell.stop_clients()
    cell.wait_done(timeout_s)
    if (code := cell.stop()) != 0:
        raise Stuck(f"SIGTERM ended it with {code}:\n{cell.zygote.tail()}")


def judge(cell: Cell, made: Outcome) -> Checker:
    """Read the histories and the disk."""
    checker = Checker()
    checker.feed(read(cell.histories))
    if not any(violation.rule == "stuck" for violation in made.violations):
        checker.close(take(cell.home, cell.url))
    made.violations += checker.violations
    made.counts = checker.counts
    made.accepted = checker.counts["accepted"]
    for name, (reached, killed) in cell.tally.counts().items():
        made.points[name] += killed
        made.reached[name] += reached
    return checker


def take(home: Path, url: str) -> snapshot.Snapshot:
    """What is on the disk; what cannot be read is damage."""
    try:
        return snapshot.take(home, url)
    except (SQLAlchemyError, OSError, ValueError) as error:
        return snapshot.Snapshot(damage=[f"{type(error).__name__}: {error}"])


__all__ = ["NAMES", "Outcome", "Storm", "run"]
