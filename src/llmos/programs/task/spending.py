"""A task's budget: what is spent already, and whether there is any left."""

from __future__ import annotations

from collections.abc import Iterable

from llmos.abi.inference import Usage
from llmos.abi.tasks import Policy
from llmos.errors import QuotaExceeded
from llmos.programs.task.rows import Kept


class Spending:
    """Checked before each call, so what is under way may take it over the budget."""

    def __init__(self, policy: Policy) -> None:
        self._max_tokens = policy.max_tokens
        self._max_cost = policy.max_cost
        self._num_tokens = 0
        self._cost = 0.0

    @property
    def is_bounded(self) -> bool:
        return self._max_tokens is not None or self._max_cost is not None

    def recall(self, kept: Iterable[Kept]) -> None:
        """Of earlier attempts."""
        for one in kept:
            self._num_tokens += one.prompt_tokens + one.completion_tokens
            self._cost += one.cost or 0.0

    def add(self, usage: Usage, cost: float | None) -> None:
        """Of one call."""
        self._num_tokens += usage.prompt_tokens + usage.completion_tokens
        self._cost += cost or 0.0

    def check(self) -> None:
        """Raises QuotaExceeded when nothing is left."""
        if self._max_tokens is not None and self._num_tokens >= self._max_tokens:
            raise QuotaExceeded(f"the task's budget of {self._max_tokens} tokens is spent")
        if self._max_cost is not None and self._cost >= self._max_cost:
            raise QuotaExceeded(f"the task's budget of {self._max_cost} US dollars is spent")
