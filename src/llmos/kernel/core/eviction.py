"""By which rule idle owners lose their memory: ours by default, two others to compare with."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


class Eviction(enum.StrEnum):
    """COST goes to `plan_room`; the others are orders, for `plan_in_order`.

    COST: the least work to undo it, expected. LRU: who is idle the longest, of any size.
    KEEP_ALIVE: who asked for the shortest keep-alive, as in Ollama's scheduler (`server/sched.go`,
    where a negative one is the longest); equals, which there go by path, by who is idle longest.
    """

    COST = "cost"
    LRU = "lru"
    KEEP_ALIVE = "keep-alive"


@dataclass(frozen=True, slots=True)
class Idle:
    """One that could go. `probability`: that it is wanted again while it would still be here.

    `reload_ns`: what it then takes until it serves again. `keep_alive_ns` negative: for ever.
    """

    owner: str
    size_bytes: int
    reload_ns: float
    probability: float
    idle_since_ns: int
    keep_alive_ns: int


Rank = tuple[float, int, str]


def cost_of(idle: Idle) -> float:
    """Expected ns of work to have it back: a `Choice.cost`."""
    return idle.reload_ns * idle.probability


def rank_of(idle: Idle, eviction: Eviction) -> Rank:
    """Who ranks lowest goes first; equals by name. By COST: the least for each byte freed."""
    if eviction is Eviction.LRU:
        return idle.idle_since_ns, 0, idle.owner
    if eviction is Eviction.KEEP_ALIVE:
        keep_ns = math.inf if idle.keep_alive_ns < 0 else idle.keep_alive_ns
        return keep_ns, idle.idle_since_ns, idle.owner
    return cost_of(idle) / max(1, idle.size_bytes), idle.idle_since_ns, idle.owner
