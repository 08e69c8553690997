"""The processes of one run, and what they say to each other: all of them end at the same step.

Through torch.distributed on this machine's loopback. The first decides, tells and writes; the
others do as it says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class Ranks:
    """This process's place among `size`. Alone, it agrees with itself."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    def agree(self, number: int) -> int:
        """What the first said, whatever the others did."""
        if self.is_alone:
            return number
        told = torch.tensor([number], dtype=torch.int64)
        torch.distributed.broadcast(told, 0)
        return int(told)

    def share(self, value: Any) -> Any:
        """The first's."""
        if self.is_alone:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, 0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Everybody's, by rank."""
        if self.is_alone:
            return [value]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def spread(self, tensors: Iterable[torch.Tensor]) -> None:
        """The first's, copied in place into everybody's."""
        if not self.is_alone:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)

    def seed(self, seed: int) -> None:
        """What is drawn while learning is drawn by each for itself; the first as it would alone."""
        if not self.is_first:
            from transformers import set_seed

            set_seed((seed + 1_000_003 * self.rank) % 2**32)
