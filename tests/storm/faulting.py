"""Periods in which the disk is full, broken, or no file can be opened, on a running server."""

from __future__ import annotations

import errno
import resource
from dataclasses import dataclass, field
from pathlib import Path

from tests.storm.cell import Stuck
from tests.storm.clock import HOUR_NS
from tests.storm.hook import Plan
from tests.storm.powerloss import FSYNC, NAMES, WRITE
from tests.storm.servers import ServerCell
from tests.storm.storming import Outcome, calm_down, judge

KINDS = ("ENOSPC", "EIO", "EMFILE")
BEFORE_S, AFTER_S = 2.0, 2.0


@dataclass
class Faults:
    """By kind: seconds to each refusal, and from its end to the next accepted work."""

    refused_s: dict[str, list[float]] = field(default_factory=dict)
    recovered_s: dict[str, list[float]] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=Outcome)


def storm(cell: ServerCell, kinds: tuple[str, ...] = KINDS, length_s: float = 2.0) -> Faults:
    """One life with a period of each kind, then calm; what was acknowledged must be kept."""
    made = Faults()
    try:
        cell.start(Plan())
        if not cell.wait_ready():
            raise Stuck(f"not started:\n{cell.zygote.tail()}")
        cell.start_clients(1, num_clients=8, pace_s=0.01)
        for kind in kinds:
            _live(cell, BEFORE_S)
            cell.marks.mark("fault", kind)
            _begin(cell, kind)
            _live(cell, length_s)
            _end(cell, kind)
            cell.marks.mark("healed", kind)
            _live(cell, AFTER_S)
        calm_down(cell)
    except Stuck as error:
        made.outcome.add("stuck", str(error))
    finally:
        cell.close()
    checker = judge(cell, made.outcome)
    made.refused_s, made.recovered_s = checker.refusals_s, checker.recoveries_s
    return made


def jump(cell: ServerCell, length_s: float = 2.0) -> Outcome:
    """The clock goes an hour ahead, an hour behind, and back again, with a kill between."""
    made = Outcome()
    try:
        weights = {"respond": 10, "drill": 2, "drill_roughly": 10, "after": 2, "show": 10}
        cell.start_clients(1, num_clients=4, pace_s=0.1, weights=weights)
        for offset_ns in (HOUR_NS, -HOUR_NS, 0):
            cell.start(Plan(), sets={"jobs.min_backoff_s": 1.0})
            if not cell.wait_ready():
                raise Stuck(f"not started:\n{cell.zygote.tail()}")
            _live(cell, length_s)
            cell.jump_clock(offset_ns)
            _live(cell, length_s)
            if offset_ns:
                cell.kill()
        calm_down(cell)
    except Stuck as error:
        made.add("stuck", str(error))
    finally:
        cell.close()
    judge(cell, made)
    made.kills = cell.kills
    return made


def _live(cell: ServerCell, seconds: float) -> None:
    if cell.wait_ended(seconds):
        raise Stuck(f"it ended with {cell.ended}:\n{cell.zygote.tail()}")


def _begin(cell: ServerCell, kind: str) -> None:
    if kind == "EMFILE":
        num_open = len(list(Path(f"/proc/{cell.pid}/fd").iterdir()))
        _, hard = resource.prlimit(cell.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(cell.pid, resource.RLIMIT_NOFILE, (num_open // 2, hard))
        return
    assert cell.disk is not None, "a disk fails by the file layer"
    cell.disk.fail(getattr(errno, kind), WRITE | FSYNC | NAMES)


def _end(cell: ServerCell, kind: str) -> None:
    if kind == "EMFILE":
        _, hard = resource.prlimit(cell.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(cell.pid, resource.RLIMIT_NOFILE, (hard, hard))
        return
    assert cell.disk is not None
    cell.disk.fail(0, 0)


__all__ = ["KINDS", "Faults", "storm"]
