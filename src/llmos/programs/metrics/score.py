"""A score of many examples as a function of how often each counts.

Counting each once gives the score itself; counting some and not others gives a slice; counting
them as drawn with replacement gives a bootstrap replicate. Most scores are functions of a sum of
what each example contributes (`Sums`), so a thousand replicates are one product of matrices.

Legend: N examples, U cells, K parts of an example, R replicates.
"""

# ruff: noqa: N803, N815 (array names carry their shape)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Combine = Callable[[Floats], Floats]
"""From sums [..., K] to scores [...]; what is undefined is NaN."""


class Score(Protocol):
    """`name` is its key in a report. `num_examples` is N."""

    @property
    def name(self) -> str: ...

    @property
    def num_examples(self) -> int: ...

    @property
    def higher_is_better(self) -> bool: ...

    @property
    def cells(self) -> Ints:
        """[N]: which of its U cells each example is in. Examples of one cell are alike to it."""
        ...

    def of(self, counts_RU: Floats) -> Floats:
        """[R] scores, by how often each cell counts."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """A score that is `combine` of the sum of `parts_UK[cells]`."""

    name: str
    parts_UK: Floats
    cells: Ints
    combine: Combine
    higher_is_better: bool = True

    @property
    def num_examples(self) -> int:
        return len(self.cells)

    def of(self, counts_RU: Floats) -> Floats:
        return self.combine(counts_RU @ self.parts_UK)


def own_cells(num_examples: int) -> Ints:
    """Of a score to which no two examples are alike."""
    return np.arange(num_examples, dtype=np.int64)


def mean_of(name: str, values_N: Any, *, higher_is_better: bool = True) -> Sums:
    """The mean of a number that each example has; of NaN, those that have none are left out."""
    values = np.asarray(values_N, dtype=np.float64)
    there = ~np.isnan(values)
    uniques, cells = np.unique(np.where(there, values, np.nan), return_inverse=True)
    told = ~np.isnan(uniques)
    parts = np.stack([np.where(told, uniques, 0.0), told.astype(np.float64)], axis=1)
    return Sums(name, parts, cells.astype(np.int64), mean, higher_is_better)


def mean(sums: Floats) -> Floats:
    """Of sums of values, and how many have one."""
    return ratio(sums[..., 0], sums[..., 1])


def ratio(over: Floats, under: Floats, empty: float = np.nan) -> Floats:
    """Element by element; `empty` where nothing is divided by."""
    whole = under != 0
    made: Floats = np.where(whole, over / np.where(whole, under, 1.0), empty)
    return made


def counts_of(score: Score, chosen_N: Flags | None = None) -> Floats:
    """[U]: how many examples are in each cell, all of them or those chosen."""
    cells = score.cells if chosen_N is None else score.cells[chosen_N]
    num_cells = int(score.cells.max()) + 1 if len(score.cells) else 0
    return np.bincount(cells, minlength=num_cells).astype(np.float64)


def value_of(score: Score, chosen_N: Flags | None = None) -> float:
    """The score itself, or that of a slice."""
    return float(score.of(counts_of(score, chosen_N)[None, :])[0])
