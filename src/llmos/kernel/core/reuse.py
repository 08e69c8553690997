"""How likely a model is wanted again soon, from when it was wanted before.

Arrivals of a model are taken for a Poisson process whose rate follows the recent past: each counts
1, and half as much after every half-life. So the next one comes within a horizon h with probability
1 - exp(-rate * h). That is the hazard by which caches rank what to lose: LHD (Beckmann, Chen,
Cidon, "LHD: Improving Cache Hit Rate by Maximizing Hit Density", NSDI 2018) estimates it by age,
and cost-aware caches weigh it with what a miss costs (GreedyDual-Size, Cao and Irani, 1997). A rate
with one number per model serves better here than ages in classes: models are few, and what is known
of each is a handful of arrivals. It knows nothing of loads, sizes or who asks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HALF_LIFE_NS = 120 * 10**9

LEAST_COUNT = 2.0**-20
"""An arrival of twenty half-lives ago: from there on a model is as good as never wanted."""

MAX_MODELS = 4096
"""Of which arrivals are remembered; those with the lowest rate are forgotten first."""


@dataclass(slots=True)
class _Count:
    """Arrivals so far, each with what is left of its weight at `at_ns`."""

    value: float
    at_ns: int


class Demand:
    """Arrivals by model, decaying. Times are of one monotone clock; an earlier one counts as now.

    A count is brought up to date from its own last arrival, so that errors of rounding decay too.
    """

    def __init__(self, half_life_ns: int = HALF_LIFE_NS) -> None:
        assert half_life_ns > 0
        self._half_life_ns = half_life_ns
        self._counts: dict[str, _Count] = {}
        self._swept_ns = 0

    def __len__(self) -> int:
        return len(self._counts)

    def arrived(self, model_id: str, now_ns: int) -> None:
        """Someone asked for it."""
        value = 1.0 + self._count(model_id, now_ns)
        known = self._counts.get(model_id)
        at_ns = now_ns if known is None else max(now_ns, known.at_ns)
        self._counts[model_id] = _Count(value, at_ns)
        if now_ns - self._swept_ns >= self._half_life_ns or len(self._counts) > MAX_MODELS:
            self._sweep(now_ns)

    def rate_per_s(self, model_id: str, now_ns: int) -> float:
        """Of steady arrivals that would have led to the count there is: count ln 2 / half-life."""
        return self._count(model_id, now_ns) * math.log(2) / (self._half_life_ns / 1e9)

    def probability(self, model_id: str, horizon_ns: int, now_ns: int) -> float:
        """That it is wanted within the horizon."""
        return -math.expm1(-self.rate_per_s(model_id, now_ns) * max(0, horizon_ns) / 1e9)

    def _count(self, model_id: str, now_ns: int) -> float:
        known = self._counts.get(model_id)
        if known is None:
            return 0.0
        value = known.value * math.exp2(-max(0, now_ns - known.at_ns) / self._half_life_ns)
        return value if value >= LEAST_COUNT else 0.0

    def _sweep(self, now_ns: int) -> None:
        """Forget who is as good as never wanted, and of too many a quarter at once."""
        self._swept_ns = now_ns
        left = {model_id: self._count(model_id, now_ns) for model_id in self._counts}
        ranked = sorted((m for m in left if left[m]), key=lambda m: (-left[m], m))
        most = MAX_MODELS if len(ranked) <= MAX_MODELS else MAX_MODELS * 3 // 4
        kept = set(ranked[:most])
        self._counts = {m: count for m, count in self._counts.items() if m in kept}
