"""What a server under the storm does at crash points: count, die, stall, or fail as a disk does."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import struct
import threading
import time
from pathlib import Path

import msgspec

from llmos.telemetry import faults

NAMES = sorted(faults.POINTS)
_COUNT = struct.Struct("<Q")


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """At the `hit`-th reaching of `point` in this life: kill, stall (for `linger_s`), or an errno
    by its name. A kill lingers too, so that whoever was answered too early says so. `share`: the
    chance of the act at every reaching from then on, for errors."""

    point: str = ""
    hit: int = 1
    act: str = "kill"
    linger_s: float = 0.0


class Tally:
    """How often each point was reached and killed at, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        size = 2 * _COUNT.size * len(NAMES)
        if not path.exists() or path.stat().st_size < size:
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._at = {name: 2 * _COUNT.size * i for i, name in enumerate(NAMES)}
        self._lock = threading.Lock()

    def add(self, name: str, *, killed: bool = False) -> None:
        at = self._at[name] + (_COUNT.size if killed else 0)
        with self._lock:
            (count,) = _COUNT.unpack_from(self._map, at)
            _COUNT.pack_into(self._map, at, count + 1)

    def counts(self) -> dict[str, tuple[int, int]]:
        """(reached, killed at) by point."""
        pair = struct.Struct("<QQ")
        return {name: pair.unpack_from(self._map, at) for name, at in self._at.items()}


def install(plan: Plan, tally: Tally) -> None:
    """For this process, from now on."""
    hits = 0
    lock = threading.Lock()

    def hook(point: str) -> None:
        nonlocal hits
        tally.add(point)
        if point != plan.point:
            return
        with lock:
            hits += 1
            if hits != plan.hit:
                return
        time.sleep(plan.linger_s)
        if plan.act == "kill":
            tally.add(point, killed=True)
            os.kill(os.getpid(), signal.SIGKILL)
        elif plan.act != "stall":
            number = getattr(errno, plan.act)
            raise OSError(number, os.strerror(number))

    faults.install(hook)
