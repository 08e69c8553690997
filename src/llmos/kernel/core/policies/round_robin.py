"""Round robin: everyone of a class a slice in turn, whoever they belong to."""

from __future__ import annotations

from llmos.abi.policy import Policy, Tuning, Waiting
from llmos.kernel.core.policies.classes import ByClass
from llmos.kernel.core.policies.order import KeyOrder


class TurnOrder(KeyOrder):
    """Who comes, or comes back after its slice, goes to the end."""

    takes_turns = True

    def __init__(self) -> None:
        super().__init__(lambda waiting: ())

    def prefers(self, waiting: Waiting, running: Waiting, is_over: bool) -> str | None:
        return "its slice is over, and others wait for their turn" if is_over else None


def make(tuning: Tuning) -> Policy:
    """Classes, and turns within each."""
    return ByClass(TurnOrder, tuning)
