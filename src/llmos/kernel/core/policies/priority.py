"""Priority: the higher class first, then who is due first. No shares, no slices within a class."""

from __future__ import annotations

from llmos.abi.policy import Policy, Tuning
from llmos.kernel.core.policies.classes import ByClass
from llmos.kernel.core.policies.order import KeyOrder, due_key


def make(tuning: Tuning) -> Policy:
    """Classes with preemption between them, arrival (shifted by nice) within."""
    return ByClass(lambda: KeyOrder(due_key(tuning.nice_step_ns)), tuning)
