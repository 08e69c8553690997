"""What goes wrong, and how often: drawn from the run's own chance, so that a seed repeats it."""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass

from llmos.errors import InvalidRequest

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities, 0 to 1.

    Of a replica: `refused` (its load, being parked, or coming back), `slow`, `hung` and `crashed`
    (at some time of its life; a hung one is killed `probe_timeout_ns` later), `swells` (it is
    measured above what it reserved). Of a message: `late`, `duplicate`. Of a request: its client
    `leaves`, `stalls`, or `renices` it, an operator `holds` it for a while, or `moves` its model
    (loads, pins, unpins or unloads it). Of a snapshot: `unsaved` (it cannot be written or moved),
    `rots` (it cannot be read). When a request comes, others on the machine leave it `short` of
    memory for a while.
    """

    refused: float = 0.0
    slow: float = 0.0
    hung: float = 0.0
    crashed: float = 0.0
    late: float = 0.0
    duplicate: float = 0.0
    leaves: float = 0.0
    stalls: float = 0.0
    renices: float = 0.0
    moves: float = 0.0
    unsaved: float = 0.0
    rots: float = 0.0
    holds: float = 0.0
    swells: float = 0.0
    short: float = 0.0

    @property
    def are_any(self) -> bool:
        return any(dataclasses.astuple(self))


NAMES = tuple(field.name for field in dataclasses.fields(Faults))
HEAVY = Faults(
    refused=0.2, crashed=1.0, moves=0.3, leaves=0.2, stalls=0.3, holds=0.3, swells=0.5, unsaved=0.3
)
ALL = Faults(
    *(0.1, 0.2, 0.1, 0.2),
    *(0.05, 0.05, 0.05, 0.05, 0.05, 0.05),
    *(0.2, 0.3, 0.1, 0.2, 0.02),
)


def parse(text: str) -> Faults:
    """`none`, `all`, or `crashed=0.2,late=0.01`. Raises InvalidRequest."""
    if text in ("", "none"):
        return Faults()
    if text == "all":
        return ALL
    chosen: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in NAMES:
            raise InvalidRequest(f"fault {name!r} is not one of {', '.join(NAMES)}", param="faults")
        chosen[name] = _share(name, number)
    return Faults(**chosen)


def _share(name: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise InvalidRequest(f"{name} must be from 0 to 1, not {number!r:.40}", param="faults")
    return value


@dataclass(frozen=True, slots=True)
class Life:
    """What will happen to one replica; times in ns from when it is up. `swollen`: so many times
    what it reserved."""

    is_refused: bool = False
    dies_loading: bool = False
    slowness: float = 1.0
    hangs_ns: int | None = None
    crashes_ns: int | None = None
    swells_ns: int | None = None
    swollen: float = 1.0


def draw_life(rng: random.Random, faults: Faults, span_ns: int) -> Life:
    """Fates fall within `span_ns`."""
    if not faults.are_any:
        return Life()
    return Life(
        is_refused=rng.random() < faults.refused,
        dies_loading=rng.random() < faults.crashed / 2,
        slowness=rng.uniform(2.0, 10.0) if rng.random() < faults.slow else 1.0,
        hangs_ns=rng.randrange(span_ns) if rng.random() < faults.hung else None,
        crashes_ns=rng.randrange(span_ns) if rng.random() < faults.crashed else None,
        swells_ns=rng.randrange(span_ns) if rng.random() < faults.swells else None,
        swollen=rng.uniform(0.5, 1.4),
    )
