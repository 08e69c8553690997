"""The cheapest way to cover a need: a minimum knapsack whose items come in exclusive groups.

    minimize Σ price  over at most one option of each group  so that Σ frees ≥ need, each device

This is the multiple-choice knapsack problem in its covering form (Kellerer, Pferschy, Pisinger,
*Knapsack Problems*, 2004, sections 11 and 13.3.2; Carnes and Shmoys, "Primal-dual schema for
capacitated covering problems", 2008), NP-hard and small here. Branch and bound, one group after
another: of the partial plans only those stay that no other beats and whose bound is below the best
plan known. Bounds are those of the linear relaxation, on each device alone and on all of them
weighed together, and rounding it up gives the plans to beat. Everything is in whole numbers, so no
error of rounding prunes a best plan.
"""

from __future__ import annotations

import itertools
import operator
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

Need = tuple[int, ...]

NUM_ROUNDED = 2
"""Partial plans of a layer whose relaxation is rounded up: those of the lowest bounds."""

NUM_WEIGHINGS = 5
"""Weights of the devices that are tried for the bound over all of them."""

WEIGHT_STEPS = 1 << 20
"""A weight is a part of the largest one, in such steps."""


class Option(NamedTuple):
    """`price` > 0; `frees` by device, in the order of the need; `tag` is the caller's."""

    price: int
    frees: Need
    tag: int


class _Step(NamedTuple):
    """From one option of a group to the next better one of its relaxation, for `price` more."""

    slope: int
    at: int
    free: int
    price: int
    option: Option


class _Table(NamedTuple):
    """The relaxation for the groups from some one on: its steps, and the first k added up."""

    steps: list[_Step]
    frees: list[int]
    prices: list[int]


class _Partial(NamedTuple):
    """`price` so far, what is still needed, what was taken, the bound of all that comes of it."""

    price: int
    need: Need
    taken: tuple[Option, ...]
    bound: int


def cheapest(need: Need, groups: Sequence[Sequence[Option]], budget: int) -> list[Option] | None:
    """The options of least total price, none of them superfluous; None: all together do not do.

    `budget` partial plans are looked into, an equal part of it after each group. Where that is not
    enough those of the lowest bounds go on, and the answer may be dearer than need be, or be missed
    if groups offer one device or another. `need` is positive on each device. If all sums of prices
    differ, the order of the groups does not matter.
    """
    most = [sum(max(o.frees[d] for o in group) for group in groups) for d in range(len(need))]
    if any(all_of_it < short for all_of_it, short in zip(most, need, strict=True)):
        return None
    return _Search(need, groups).run(max(1, budget // len(groups)))


class _Search:
    """`scales` turn a need into one number: each device alone, then all weighed together."""

    def __init__(self, need: Need, groups: Sequence[Sequence[Option]]) -> None:
        self._need = need
        kept = [_undominated(group) for group in groups]
        alone = [tuple(int(i == d) for i in range(len(need))) for d in range(len(need))]
        self._scales = [*alone, _weigh(need, kept)] if len(need) > 1 else alone
        scale = self._scales[-1]
        self._groups = sorted(kept, key=lambda group: _slope(group, scale))
        self._tables = [_tables(self._groups, scale) for scale in self._scales]
        self._best: list[Option] | None = None
        self._limit: int | None = None

    def run(self, width: int) -> list[Option] | None:
        """Groups that free cheaply come first: to leave them out is soon seen to be dear."""
        layer = [_Partial(0, self._need, (), 0)]
        for at in range(len(self._groups)):
            for partial in layer[:NUM_ROUNDED]:
                self._round_up(at, partial)
            layer = _unbeaten(self._branch(at, layer), width)
        return self._best

    def _branch(self, at: int, layer: Sequence[_Partial]) -> Iterator[_Partial]:
        """With each option of the group and without it, if that may be better than the best."""
        for partial in layer:
            if not self._is_better(partial.bound):
                continue
            for option in (None, *self._groups[at]):
                more = partial if option is None else _take(partial, option)
                if not self._is_better(more.price):
                    continue
                if not any(more.need):
                    self._keep(more.taken)
                    continue
                bound = self._bound(at + 1, more)
                if bound is not None and self._is_better(bound):
                    yield more._replace(bound=bound)

    def _is_better(self, price: int) -> bool:
        return self._limit is None or price < self._limit

    def _keep(self, taken: Sequence[Option]) -> None:
        plan = _spare(self._need, taken)
        price = sum(option.price for option in plan)
        if self._is_better(price):
            self._best, self._limit = plan, price

    def _bound(self, at: int, partial: _Partial) -> int | None:
        """Least price if the groups from `at` on cover the rest; None: they cannot."""
        least = 0
        for scale, tables in zip(self._scales, self._tables, strict=True):
            more = _relaxed(tables[at], _scaled(partial.need, scale))
            if more is None:
                return None
            least = max(least, more)
        return partial.price + least

    def _round_up(self, at: int, partial: _Partial) -> None:
        """Take whole steps of the relaxation until the need is met."""
        table, short = self._tables[-1][at], _scaled(partial.need, self._scales[-1])
        k = bisect_left(table.frees, short)
        steps = {step.at: step.option for step in table.steps[:k]}
        for step in table.steps[k:]:
            if _covers(steps.values(), partial.need):
                break
            steps[step.at] = step.option
        if _covers(steps.values(), partial.need):
            self._keep([*partial.taken, *steps.values()])


def _by_bound(partial: _Partial) -> tuple[int, int, Need]:
    return partial.bound, partial.price, partial.need


def _scaled(frees: Need, scale: Need) -> int:
    return sum([f * s for f, s in zip(frees, scale, strict=True)])


def _covers(options: Collection[Option], need: Need) -> bool:
    return all(sum(o.frees[d] for o in options) >= short for d, short in enumerate(need))


def _relaxed(table: _Table, short: int) -> int | None:
    """The relaxation's price, rounded up to a whole one; None: all steps do not do."""
    k = bisect_left(table.frees, short)
    if k == len(table.frees):
        return None
    if k == 0:
        return 0
    free, price = table.frees[k - 1], table.prices[k - 1]
    return price - (-(table.prices[k] - price) * (short - free) // (table.frees[k] - free))


def _weigh(need: Need, groups: Sequence[Sequence[Option]]) -> Need:
    """Weights of the devices for which the relaxation is dear, so that its bound is tight.

    From equal parts of the need on, what the relaxation covers too little of counts more.
    """
    weights = [1.0 / short for short in need]
    best: tuple[int, Need] | None = None
    for _ in range(NUM_WEIGHINGS):
        largest = max(weights)
        scale = tuple(max(1, int(WEIGHT_STEPS * w / largest)) for w in weights)
        table = _table(_steps(groups, scale))
        price = _relaxed(table, _scaled(need, scale)) or 0
        if best is None or price > best[0]:
            best = price, scale
        k = bisect_left(table.frees, _scaled(need, scale))
        steps = {step.at: step.option for step in table.steps[:k]}
        freed = [sum(o.frees[d] for o in steps.values()) for d in range(len(need))]
        weights = [
            w * short / max(f, short / 4) for w, short, f in zip(weights, need, freed, strict=True)
        ]
    assert best is not None
    return best[1]


def _take(partial: _Partial, option: Option) -> _Partial:
    need = _less(partial.need, option.frees)
    return _Partial(partial.price + option.price, need, (*partial.taken, option), 0)


def _less(need: Need, frees: Need) -> Need:
    """What is still needed."""
    return tuple([n - f if n > f else 0 for n, f in zip(need, frees, strict=True)])


def _unbeaten(partials: Iterable[_Partial], width: int) -> list[_Partial]:
    """Without those that another is as cheap as and needs no more than: so many of low bounds."""
    ordered = sorted(partials, key=_by_bound)  # who beats another has no higher bound
    kept: list[_Partial] = []
    for partial in ordered:
        if len(kept) == width:
            break
        if not any(
            other.price <= partial.price and _is_less(other.need, partial.need) for other in kept
        ):
            kept.append(partial)
    return kept


def _is_less(a: Need, b: Need) -> bool:
    return all(map(operator.le, a, b))


def _spare(need: Need, taken: Sequence[Option]) -> list[Option]:
    """Without those that the others make superfluous, the dearest first (reverse delete)."""
    kept = sorted(taken, reverse=True)
    for option in list(kept):
        others = [other for other in kept if other is not option]
        if _covers(others, need):
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


def _hull(at: int, group: Sequence[Option], scale: Need) -> list[_Step]:
    """The relaxation of a group: the lower convex hull of (freed, price), from nothing on."""
    steps: list[_Step] = []
    for option in group:
        free = _scaled(option.frees, scale) - sum([step.free for step in steps])
        price = option.price - sum([step.price for step in steps])
        if free <= 0:
            continue
        while steps and steps[-1].price * free >= price * steps[-1].free:
            free += steps[-1].free
            price += steps[-1].price
            steps.pop()
        steps.append(_Step(0, at, free, price, option))
    return steps


def _slope(group: Sequence[Option], scale: Need) -> tuple[int, int]:
    """Price per freed unit of the first step, then the cheapest option: an order of branching."""
    step = _hull(0, group, scale)[0]
    return (step.price << 64) // step.free, group[0].price


def _tables(groups: Sequence[Sequence[Option]], scale: Need) -> list[_Table]:
    """For each suffix of the groups, the steps of their hulls by price per unit."""
    steps = _steps(groups, scale)
    return [_table([s for s in steps if s.at >= first]) for first in range(len(groups) + 1)]


def _steps(groups: Sequence[Sequence[Option]], scale: Need) -> list[_Step]:
    """Two different ratios of numbers below 2^b differ by more than 2^-2b: the slope is exact."""
    steps = [step for at, group in enumerate(groups) for step in _hull(at, group, scale)]
    shift = 2 * max(step.free for step in steps).bit_length()
    return sorted(step._replace(slope=(step.price << shift) // step.free) for step in steps)


def _table(steps: list[_Step]) -> _Table:
    frees = itertools.accumulate((step.free for step in steps), initial=0)
    prices = itertools.accumulate((step.price for step in steps), initial=0)
    return _Table(steps, list(frees), list(prices))
