"""The cheapest way to cover a need: a minimum knapsack whose items come in exclusive groups.

    minimize Σ price  over at most one option of each group  so that Σ frees ≥ need, each device

This is the multiple-choice knapsack problem in its covering form (Kellerer, Pferschy, Pisinger,
*Knapsack Problems*, 2004, sections 11 and 13.3.2; Carnes and Shmoys, "Primal-dual schema for
capacitated covering problems", 2008), NP-hard and small here. Branch and bound, depth first, from
a greedy answer. The bound is that of the linear relaxation on each device alone and on all of them
weighed together; everything is in whole numbers, so no rounding prunes a best answer.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

Need = tuple[int, ...]


class Option(NamedTuple):
    """`price` > 0; `frees` by device, in the order of the need; `tag` is the caller's."""

    price: int
    frees: Need
    tag: int


class _Table(NamedTuple):
    """The relaxation for a suffix of the groups: what the k best steps free, and their price."""

    frees: list[int]
    prices: list[int]


Node = tuple[int, int, Need, tuple[Option, ...]]
"""The next group, the price so far, what is still needed, what was taken."""


def cheapest(need: Need, groups: Sequence[Sequence[Option]], max_nodes: int) -> list[Option] | None:
    """The options of least total price, none of them superfluous; None: all together do not do.

    After `max_nodes` nodes the best so far, which then may be dearer than need be; if there is none
    yet, None. One device always has one, and so has a need whose groups each have an option that
    frees most on every device. `need` is positive on each device. Prices that all sums of options
    differ in make the answer independent of the order of the groups.
    """
    if not _is_met(need, groups):
        return None
    return _Search(need, groups).run(max_nodes)


def _is_met(need: Need, groups: Sequence[Sequence[Option]]) -> bool:
    return all(
        sum(max(option.frees[d] for option in group) for group in groups) >= short
        for d, short in enumerate(need)
    )


def _less(need: Need, frees: Need) -> Need:
    """What is still needed."""
    return tuple([n - f if n > f else 0 for n, f in zip(need, frees, strict=True)])


class _Search:
    """`scales` turn a need into one number: each device alone, then all in parts of the need."""

    def __init__(self, need: Need, groups: Sequence[Sequence[Option]]) -> None:
        self._need = need
        largest = max(need)
        together = tuple((largest << 10) // short for short in need)
        self._groups = sorted(
            (_undominated(group) for group in groups), key=lambda g: _slope(g, together)
        )
        alone = [tuple(int(i == d) for i in range(len(need))) for d in range(len(need))]
        self._scales = alone if len(need) == 1 else [*alone, together]
        self._tables = [_tables(self._groups, scale) for scale in self._scales]
        self._together = together
        self.num_nodes = 0

    def run(self, max_nodes: int) -> list[Option] | None:
        """Takes an option before it leaves the group out, the one that frees cheapest first."""
        best = self._greedy()
        seen: dict[tuple[int, Need], int] = {}
        stack: list[Node] = [(0, 0, self._need, ())]
        while stack and self.num_nodes < max_nodes:
            self.num_nodes += 1
            at, price, need, taken = stack.pop()
            limit = None if best is None else sum(option.price for option in best)
            if not any(need):
                if limit is None or price < limit:
                    best = _spare(self._need, taken)
                continue
            bound = self._bound(at, need)
            if bound is None or (limit is not None and price + bound >= limit):
                continue
            if seen.get((at, need), price + 1) <= price:
                continue
            seen[at, need] = price
            stack.append((at + 1, price, need, taken))
            for option in reversed(self._groups[at]):
                rest = _less(need, option.frees)
                stack.append((at + 1, price + option.price, rest, (*taken, option)))
        return best

    def _bound(self, at: int, need: Need) -> int | None:
        """Least price of covering the need by the groups from `at` on; None: they cannot."""
        bound = 0
        for scale, tables in zip(self._scales, self._tables, strict=True):
            frees, prices = tables[at]
            short = sum([n * s for n, s in zip(need, scale, strict=True)])
            k = bisect_left(frees, short)
            if k == len(frees):
                return None
            if k:
                part = (prices[k] - prices[k - 1]) * (short - frees[k - 1])
                bound = max(bound, prices[k - 1] - (-part // (frees[k] - frees[k - 1])))
        return bound

    def _greedy(self) -> list[Option] | None:
        """Again and again what frees most of what is still needed for its price (Dobson, 1982)."""
        need, taken, left = self._need, list[Option](), list(self._groups)
        while any(need):
            found: tuple[float, int, Option] | None = None
            for i, group in enumerate(left):
                for option in group:
                    useful = sum(
                        min(n, f) * s
                        for n, f, s in zip(need, option.frees, self._together, strict=True)
                    )
                    if useful and (found is None or option.price / useful < found[0]):
                        found = (option.price / useful, i, option)
            if found is None:
                return None
            taken.append(found[2])
            need = _less(need, found[2].frees)
            del left[found[1]]
        return _spare(self._need, taken)


def _spare(need: Need, taken: Sequence[Option]) -> list[Option]:
    """Without those that the others make superfluous, the dearest first (reverse delete)."""
    kept = sorted(taken, reverse=True)
    for option in list(kept):
        others = [other for other in kept if other is not option]
        if all(sum(other.frees[d] for other in others) >= short for d, short in enumerate(need)):
            kept = others
    return kept


def _undominated(group: Sequence[Option]) -> list[Option]:
    """Without options that a cheaper one beats on every device; cheapest first."""
    kept: list[Option] = []
    for option in sorted(group):
        if not any(
            all(a >= b for a, b in zip(other.frees, option.frees, strict=True)) for other in kept
        ):
            kept.append(option)
    return kept


def _hull(group: Sequence[Option], scale: Need) -> list[tuple[int, int]]:
    """(freed, price) of the relaxation of a group: the lower convex hull, from nothing on."""
    points = [
        (sum([f * s for f, s in zip(option.frees, scale, strict=True)]), option.price)
        for option in group
    ]
    hull = [(0, 0)]
    for free, price in sorted(points):
        if free <= hull[-1][0]:
            continue
        while len(hull) > 1 and _is_above(hull[-2], hull[-1], (free, price)):
            hull.pop()
        hull.append((free, price))
    return hull


def _is_above(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    """`b` is not below the line from `a` to `c`."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def _slope(group: Sequence[Option], scale: Need) -> tuple[float, int]:
    """Price per freed unit of the first step, then the cheapest option: an order of branching."""
    free, price = _hull(group, scale)[1]
    return price / free, group[0].price


def _tables(groups: Sequence[Sequence[Option]], scale: Need) -> list[_Table]:
    """For each suffix of the groups, the steps of their hulls by price per unit, added up.

    Two different ratios of numbers below 2^b differ by more than 2^-2b, so the key is exact.
    """
    steps: list[tuple[int, int, int, int]] = []
    hulls = [_hull(group, scale) for group in groups]
    shift = 2 * max(hull[-1][0] for hull in hulls).bit_length()
    for at, hull in enumerate(hulls):
        for before, after in itertools.pairwise(hull):
            free, price = after[0] - before[0], after[1] - before[1]
            steps.append(((price << shift) // free, at, free, price))
    steps.sort()
    return [_suffix(steps, at) for at in range(len(groups) + 1)]


def _suffix(steps: Sequence[tuple[int, int, int, int]], first: int) -> _Table:
    frees, prices = [0], [0]
    for _, at, free, price in steps:
        if at >= first:
            frees.append(frees[-1] + free)
            prices.append(prices[-1] + price)
    return _Table(frees, prices)
