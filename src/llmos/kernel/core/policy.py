"""Admission orders. First come within a class; a fairer one is a later module of this kind."""

from __future__ import annotations

from llmos.abi.policy import Waiting


class FirstCome:
    """Higher class first, then lower `nice`, then arrival."""

    name = "fifo"

    def key(self, waiting: Waiting) -> tuple[float, ...]:
        return (-waiting.service_class, waiting.nice, waiting.arrival)
