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
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Need = tuple[int, ...]


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


def cheapest(need: Need, groups: Sequence[Sequence[Option]], width: int) -> list[Option] | None:
    """The options of least total price, none of them superfluous; None: all together do not do.

    More than `width` partial plans after a group: those of the lowest bounds go on, and the answer
    may be dearer than need be, or be missed where groups offer one device or another. `need` is
    positive on each device. If all sums of prices differ, the order of the groups does not matter.
    """
    most = [sum(max(o.frees[d] for o in group) for group in groups) for d in range(len(need))]
    if any(all_of_it < short for all_of_it, short in zip(most, need, strict=True)):
        return None
    return _Search(need, groups).run(width)


class _Search:
    """`scales` turn a need into one number: each device alone, then all in parts of the need."""

    def __init__(self, need: Need, groups: Sequence[Sequence[Option]]) -> None:
        self._need = need
        together = tuple((max(need) << 10) // short for short in need)
        alone = [tuple(int(i == d) for i in range(len(need))) for d in range(len(need))]
        self._scales = [*alone, together] if len(need) > 1 else alone
        scale = self._scales[-1]
        self._groups = sorted(map(_undominated, groups), key=lambda group: _slope(group, scale))
        self._tables = [_tables(self._groups, scale) for scale in self._scales]
        self._best: list[Option] | None = None
        self._limit: int | None = None
        self.num_partial = 0
        self.is_cut = False

    def run(self, width: int) -> list[Option] | None:
        """Groups that free cheaply come first: to leave them out is soon seen to be dear."""
        layer = [_Partial(0, self._need, (), 0)]
        self._bound(0, layer[0])
        for at in range(len(self._groups)):
            layer = _unbeaten(self._branch(at, layer))
            self.num_partial += len(layer)
            if len(layer) > width:
                self.is_cut = True
                layer = sorted(layer, key=lambda partial: partial.bound)[:width]
        return self._best

    def _branch(self, at: int, layer: Sequence[_Partial]) -> Iterator[_Partial]:
        """With each option of the group and without it, if that may be better than the best."""
        for partial in layer:
            if self._limit is not None and partial.bound >= self._limit:
                continue
            for option in (None, *self._groups[at]):
                more = partial if option is None else _take(partial, option)
                bound = self._bound(at + 1, more)
                if bound is not None and (self._limit is None or bound < self._limit):
                    yield more._replace(bound=bound)

    def _bound(self, at: int, partial: _Partial) -> int | None:
        """Least price if the groups from `at` on cover the rest; None: they cannot.

        What covers all already is kept; so is what does when the relaxation is rounded up.
        """
        least = upper = 0
        for scale, tables in zip(self._scales, self._tables, strict=True):
            _, frees, prices = tables[at]
            short = sum([n * s for n, s in zip(partial.need, scale, strict=True)])
            k = bisect_left(frees, short)
            if k == len(frees):
                return None
            if k:
                part = (prices[k] - prices[k - 1]) * (short - frees[k - 1])
                least = max(least, prices[k - 1] - (-part // (frees[k] - frees[k - 1])))
            upper = prices[k]
        if self._limit is None or partial.price + upper < self._limit:
            self._round_up(at, partial)
        return partial.price + least

    def _round_up(self, at: int, partial: _Partial) -> None:
        """Take whole steps of the relaxation until the need is met."""
        need, steps = partial.need, dict[int, Option]()
        for step in self._tables[-1][at].steps:
            if not any(need):
                break
            steps[step.at] = step.option
            need = partial.need
            for option in steps.values():
                need = _less(need, option.frees)
        if any(need):
            return
        plan = _spare(self._need, [*partial.taken, *steps.values()])
        price = sum(option.price for option in plan)
        if self._limit is None or price < self._limit:
            self._best, self._limit = plan, price


def _take(partial: _Partial, option: Option) -> _Partial:
    need = _less(partial.need, option.frees)
    return _Partial(partial.price + option.price, need, (*partial.taken, option), 0)


def _less(need: Need, frees: Need) -> Need:
    """What is still needed."""
    return tuple([n - f if n > f else 0 for n, f in zip(need, frees, strict=True)])


def _unbeaten(partials: Iterator[_Partial]) -> list[_Partial]:
    """Without those that another is as cheap as and needs no more than."""
    kept: list[_Partial] = []
    least: Need | None = None
    for partial in sorted(partials):
        if len(partial.need) == 1:
            if least is not None and partial.need >= least:
                continue
            least = partial.need
        kept.append(partial)
    return kept


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


def _hull(at: int, group: Sequence[Option], scale: Need) -> list[_Step]:
    """The relaxation of a group: the lower convex hull of (freed, price), from nothing on."""
    steps: list[_Step] = []
    for option in group:
        free = sum([f * s for f, s in zip(option.frees, scale, strict=True)])
        price = option.price
        free -= sum(step.free for step in steps)
        price -= sum(step.price for step in steps)
        if free <= 0:
            continue
        while steps and steps[-1].price * free >= price * steps[-1].free:
            free += steps[-1].free
            price += steps[-1].price
            steps.pop()
        steps.append(_Step(0, at, free, price, option))
    return steps


def _slope(group: Sequence[Option], scale: Need) -> tuple[float, int]:
    """Price per freed unit of the first step, then the cheapest option: an order of branching."""
    step = _hull(0, group, scale)[0]
    return step.price / step.free, group[0].price


def _tables(groups: Sequence[Sequence[Option]], scale: Need) -> list[_Table]:
    """For each suffix of the groups, the steps of their hulls by price per unit.

    Two different ratios of numbers below 2^b differ by more than 2^-2b, so the slope is exact.
    """
    steps = [step for at, group in enumerate(groups) for step in _hull(at, group, scale)]
    shift = 2 * max(step.free for step in steps).bit_length()
    steps = sorted(step._replace(slope=(step.price << shift) // step.free) for step in steps)
    return [
        _table([step for step in steps if step.at >= first]) for first in range(len(groups) + 1)
    ]


def _table(steps: list[_Step]) -> _Table:
    frees = itertools.accumulate((step.free for step in steps), initial=0)
    prices = itertools.accumulate((step.price for step in steps), initial=0)
    return _Table(steps, list(frees), list(prices))
