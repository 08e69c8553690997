"""The processes of one run, and what they say to each other: all of them end at the same step.

The first decides, tells and writes; the others do as it says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Ranks:
    """This process's place among `size`: here it is alone, and agrees with itself."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def agree(self, number: int) -> int:
        """What the first said, whatever the others did."""
        return number

    def share(self, value: Any) -> Any:
        """The first's."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Everybody's, by rank."""
        return [value]

    def spread(self, tensors: Iterable[torch.Tensor]) -> None:
        """The first's, copied in place into everybody's."""

    def seed(self, seed: int) -> None:
        """What is drawn while learning is drawn by each for itself; the first as it would alone."""
