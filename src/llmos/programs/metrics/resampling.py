"""How sure a score is, and whether two differ: bootstrap, permutation, McNemar.

Efron & Tibshirani, An Introduction to the Bootstrap (1993), ch. 13; Koehn, Statistical Significance
Tests for Machine Translation Evaluation (2004); Noreen (1989) for approximate randomisation;
McNemar (1947), exact, for answers that are right or wrong. All draws come from one seed.

Legend: N examples, U cells, P pairs of cells, K parts, R replicates.
"""

# ruff: noqa: N803, N806, N815 (array names carry their shape)
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llmos.programs.metrics.score import (
    Flags,
    Floats,
    Ints,
    Score,
    Sums,
    counts_of,
    value_of,
)

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95
BLOCK_VALUES = 1 << 22
"""Numbers that are drawn at once."""

ROUNDING = 1e-12


class Interval(NamedTuple):
    """A percentile interval; NaN where too few replicates have the score at all."""

    low: float
    high: float


class Difference(NamedTuple):
    """Of a score, of what is new against what it is compared with, on the same examples.

    `interval` is of the difference. `p_value`: two-sided, how often chance alone would part them
    so far (`test` names how); `p_worse`: the share of replicates in which the new one is worse, by
    more than the margin that was asked for.
    """

    value: float
    interval: Interval
    p_value: float
    p_worse: float
    test: str


def interval_of(
    score: Score,
    chosen_N: Flags | None = None,
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Of a score, or of its slice."""
    counts = counts_of(score, chosen_N)
    blocks = _draw(counts, num_resamples, np.random.default_rng(seed))
    return _percentiles(np.concatenate([score.of(block) for block in blocks]), confidence)


def compare(
    new: Score,
    old: Score,
    *,
    margin: float = 0.0,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Paired: both have the same examples, in one order. Raises ValueError where they have not."""
    if new.num_examples != old.num_examples:
        raise ValueError(f"{new.num_examples} examples and {old.num_examples} are not paired")
    pairs_P2, cells = np.unique(
        np.stack([new.cells, old.cells], axis=1), axis=0, return_inverse=True
    )
    counts = np.bincount(cells.ravel(), minlength=len(pairs_P2)).astype(np.float64)
    generator = np.random.default_rng(seed)
    found = []
    for block in _draw(counts, num_resamples, generator):
        of_new = new.of(_spread(block, pairs_P2[:, 0], counts_of(new).size))
        found.append(of_new - old.of(_spread(block, pairs_P2[:, 1], counts_of(old).size)))
    differences = np.concatenate(found)
    value = value_of(new) - value_of(old)
    losses = -differences if new.higher_is_better else differences
    worse = losses > margin + ROUNDING
    ties = 0.0 if margin else np.sum(np.abs(losses) <= ROUNDING) / 2
    p_worse = float((np.sum(worse) + ties) / max(1, np.sum(~np.isnan(differences))))
    interval = _percentiles(differences, confidence)
    if isinstance(new, Sums) and isinstance(old, Sums):
        both = _Pairs(new, old, new.parts_UK[pairs_P2[:, 0]], old.parts_UK[pairs_P2[:, 1]], counts)
        p_value, test = both.p_value(num_resamples, generator)
    else:
        beyond = float(np.mean(losses > 0) + np.mean(losses == 0) / 2)
        p_value, test = min(1.0, 2 * min(beyond, 1 - beyond)), "paired bootstrap"
    return Difference(value, interval, p_value, p_worse, test)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Two sums over the same examples, by the pairs of cells that occur, and how often."""

    new: Sums
    old: Sums
    new_PK: Floats
    old_PK: Floats
    counts_P: Floats

    def p_value(self, num_resamples: int, generator: np.random.Generator) -> tuple[float, str]:
        """McNemar's for what is right or wrong, else by permutation."""
        if _is_binary(self.new_PK) and _is_binary(self.old_PK):
            gained = self.counts_P[self.new_PK[:, 0] > self.old_PK[:, 0]].sum()
            lost = self.counts_P[self.new_PK[:, 0] < self.old_PK[:, 0]].sum()
            return mcnemar(round(gained), round(lost)), "McNemar's exact test"
        return self._by_permutation(num_resamples, generator), "paired permutation"

    def _by_permutation(self, num_resamples: int, generator: np.random.Generator) -> float:
        """How often answers exchanged at random part the two as far as they are apart."""
        sum_new, sum_old = self.counts_P @ self.new_PK, self.counts_P @ self.old_PK
        observed = float(abs(self.new.combine(sum_new) - self.old.combine(sum_old)))
        whole, num_beyond = self.counts_P.astype(np.int64), 0
        for size in _blocks(num_resamples, len(whole)):
            # of each pair of cells, how many of its examples are exchanged
            swapped = generator.binomial(whole, 0.5, (size, len(whole))).astype(np.float64)
            moved = swapped @ (self.old_PK - self.new_PK)
            apart = self.new.combine(sum_new + moved) - self.old.combine(sum_old - moved)
            num_beyond += int(np.sum(np.abs(apart) >= observed - ROUNDING))
        return (num_beyond + 1) / (num_resamples + 1)


def _is_binary(parts_PK: Floats) -> bool:
    """A mean of what is 0 or 1, of all examples."""
    if parts_PK.shape[1] != 2 or not np.all(parts_PK[:, 1] == 1):
        return False
    return bool(np.all((parts_PK[:, 0] == 0) | (parts_PK[:, 0] == 1)))


def mcnemar(num_gained: int, num_lost: int) -> float:
    """The exact two-sided p-value: which of the two is right where one of them is wrong."""
    total = num_gained + num_lost
    if not total:
        return 1.0
    tail = range(min(num_gained, num_lost) + 1)
    logs = [_log_choose(total, k) - total * math.log(2) for k in tail]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _draw(counts: Floats, num_resamples: int, generator: np.random.Generator) -> Iterator[Floats]:
    """[R, U] in blocks: as many examples as there are, with replacement, by their cells."""
    total = counts.sum()
    for size in _blocks(num_resamples, len(counts)):
        drawn = generator.multinomial(int(total), counts / total, size)
        yield drawn.astype(np.float64)


def _blocks(num_resamples: int, num_cells: int) -> Iterator[int]:
    most = max(1, BLOCK_VALUES // max(1, num_cells))
    for begin in range(0, num_resamples, most):
        yield min(most, num_resamples - begin)


def _spread(counts_RP: Floats, cells_P: Ints, num_cells: int) -> Floats:
    """Counts of pairs as counts of one side's cells."""
    made = np.zeros((num_cells, counts_RP.shape[0]))
    np.add.at(made, cells_P, counts_RP.T)
    return made.T


def _percentiles(values: Floats, confidence: float) -> Interval:
    there = values[~np.isnan(values)]
    if len(there) < len(values) / 2:
        return Interval(math.nan, math.nan)
    edge = (1 - confidence) / 2
    low, high = np.quantile(there, [edge, 1 - edge])
    return Interval(float(low), float(high))
