"""Which idle model goes first: by what its return would cost, or by a rule that others use."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Eviction(enum.StrEnum):
    """COST: the least expected cost of loading it again. LRU: the longest unused. KEEP_ALIVE: the
    shortest keep-alive, then the longest unused, as Ollama does."""

    COST = "cost"
    LRU = "lru"
    KEEP_ALIVE = "keep-alive"


@dataclass(frozen=True, slots=True)
class Idle:
    """A replica that nobody uses. `probability`: of its model being wanted again soon."""

    owner: str
    size_bytes: int
    reload_ns: float
    probability: float
    idle_since_ns: int
    keep_alive_ns: int


def cost_of(idle: Idle) -> float:
    """Expected ns of loading it again."""
    return idle.reload_ns * idle.probability


def order_of(eviction: Eviction, idle: Sequence[Idle]) -> list[Idle]:
    """Whom a rule without costs takes first."""
    if eviction is Eviction.KEEP_ALIVE:
        return sorted(idle, key=lambda i: (i.keep_alive_ns, i.idle_since_ns, i.owner))
    return sorted(idle, key=lambda i: (i.idle_since_ns, i.owner))
