"""How likely a model is wanted again soon, from how often it was wanted lately."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class _Count:
    value: float
    at_ns: int


class Demand:
    """Arrivals per model, each counting half as much after every half-life."""

    def __init__(self, half_life_ns: int = 120_000_000_000) -> None:
        self._decay = math.log(2) / half_life_ns
        self._counts: dict[str, _Count] = {}

    def arrived(self, model_id: str, now_ns: int) -> None:
        count = self._counts.setdefault(model_id, _Count(0.0, now_ns))
        count.value = self._now(count, now_ns) + 1.0
        count.at_ns = now_ns

    def _now(self, count: _Count, now_ns: int) -> float:
        return count.value * math.exp(-self._decay * (now_ns - count.at_ns))

    def probability(self, model_id: str, horizon_ns: int, now_ns: int) -> float:
        """Of at least one arrival within the horizon, if they come as they did."""
        count = self._counts.get(model_id)
        if count is None:
            return 0.0
        return -math.expm1(-self._now(count, now_ns) * self._decay * horizon_ns)
