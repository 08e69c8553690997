"""First in, first out: no classes, no shares, nobody gives way. The baseline."""

from __future__ import annotations

from llmos.abi.policy import Policy, Tuning, Waiting
from llmos.abi.principal import ServiceClass
from llmos.kernel.core.policies.order import KeyOrder


class FirstCome(KeyOrder):
    """By arrival alone."""

    def __init__(self) -> None:
        super().__init__(lambda waiting: (waiting.arrival,))

    def yields(self, running: Waiting, slice_tokens: int) -> str | None:
        """Never."""
        return None

    def share_ahead(self, newcomer: Waiting, service_class: ServiceClass) -> float:
        """All of every class."""
        return 1.0

    def gives_way(self, running: Waiting, newcomer: Waiting) -> int | None:
        """Never."""
        return None


def make(tuning: Tuning) -> Policy:
    """Nothing of it can be tuned."""
    return FirstCome()
