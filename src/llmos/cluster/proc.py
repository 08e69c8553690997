"""What Linux tells of processes in /proc (proc(5)). Elsewhere nothing is known, and said so."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """`start_ticks` since boot: with the pid it names one process, whoever has that pid later."""

    pid: int
    state: str
    group: int
    start_ticks: int


def find_stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text("ascii", "replace")
        fields = text.rpartition(")")[2].split()  # the name before it may hold anything
        return Stat(pid, fields[0], int(fields[2]), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None


def members_of(group: int) -> list[Stat]:
    """Every process of a group. Walks all of /proc."""
    try:
        pids = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return []
    found = (find_stat(pid) for pid in pids)
    return [stat for stat in found if stat is not None and stat.group == group]


def tree_cpu_s(pid: int) -> float:
    """Processor seconds of a process, of its descendants, and of children that it has waited for; 0
    when it is gone."""
    total, rest, seen = 0.0, [pid], set[int]()
    while rest:
        child = rest.pop()
        if child not in seen:
            seen.add(child)
            total += _cpu_s(child)
            rest += _children(child)
    return total


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError, ValueError):
        fields = (PROC / str(pid) / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS_PER_S
    return 0.0


def tree_rss_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants; 0 when it is gone.

    Of descendants their proportional share (Pss): a forked child's pages are its parent's too.
    """
    total = _resident_bytes(pid)
    rest, seen = _children(pid), {pid}
    while rest:
        child = rest.pop()
        if child not in seen:
            seen.add(child)
            total += _share_bytes(child)
            rest += _children(child)
    return total


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int((PROC / str(pid) / "statm").read_text("ascii").split()[1]) * _PAGE_BYTES
    return 0


def _share_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return _resident_bytes(pid)


def _children(pid: int) -> list[int]:
    """Of all its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in (PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError, ValueError):
                found += map(int, (task / "children").read_text("ascii").split())
    return found
