"""Which acts on whom make room: the plan of least cost, and the plan in a given order.

Knows nothing of how a cost comes about, nor of who may be asked: whoever is leased, pinned or more
urgent is no candidate. Acting on it is the caller's.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmos.kernel.core.cover import Option, cheapest

MAX_PARTIAL = 2000
"""Partial plans that are looked into for the cheapest one: 10 to 30 ms at worst."""

COST_STEPS = 1 << 20
"""Of a nanosecond: costs that differ by less are equal."""


class Act(enum.StrEnum):
    """What is done to an owner of memory, from what is hardly felt to what is felt most."""

    SPARE = "spare"
    SPILL = "spill"
    PARK = "park"
    STOP = "stop"
    YIELD = "yield"
    DRAIN = "drain"


_ORDER = {act: i for i, act in enumerate(Act)}


@dataclass(frozen=True, slots=True)
class Choice:
    """`frees`: bytes by device. `cost`: expected ns of work to undo it, finite, 0 or more."""

    owner: str
    act: Act
    frees: Mapping[str, int]
    cost: float


def plan_room(
    missing: Mapping[str, int], candidates: Sequence[Sequence[Choice]]
) -> list[Choice] | None:
    """The choices of least total cost that free what is missing on every device, by owner.

    Each candidate is one owner's alternatives, of which one is taken at most. None: all of them
    together do not do; nothing missing: nothing done. Of equal cost, fewer choices; then fewer
    bytes freed; then the first owners by name, and the milder act: so the plan does not depend on
    the order of the candidates, and no choice in it is superfluous. This is the minimum knapsack
    problem (see `cover`): the best plan of all, unless the search is cut at `MAX_PARTIAL`. That
    takes some 16 candidates or more, and costs in proportion to sizes or several devices.
    """
    devices = sorted(device for device, size_bytes in missing.items() if size_bytes > 0)
    if not devices:
        return []
    need = tuple(missing[device] for device in devices)
    useful = [c for choices in candidates for c in choices if _helps(c, devices)]
    useful.sort(key=_rank)
    groups: dict[str, list[Option]] = {}
    for tag, (choice, price) in enumerate(zip(useful, _prices(useful), strict=True)):
        frees = tuple(
            min(choice.frees.get(d, 0), short) for d, short in zip(devices, need, strict=True)
        )
        groups.setdefault(choice.owner, []).append(Option(price, frees, tag))
    taken = cheapest(need, list(groups.values()), MAX_PARTIAL)
    return None if taken is None else [useful[tag] for tag in sorted(o.tag for o in taken)]


def plan_in_order(missing: Mapping[str, int], ordered: Sequence[Choice]) -> list[Choice] | None:
    """As few of the first as free what is missing on every device; None: all do not do.

    One choice an owner. Who is not needed once a later, bigger one is taken is spared, the last in
    the order first.
    """
    left = {device: size_bytes for device, size_bytes in missing.items() if size_bytes > 0}
    taken: list[Choice] = []
    for choice in ordered:
        if all(size_bytes <= 0 for size_bytes in left.values()):
            break
        if _helps(choice, [device for device, size_bytes in left.items() if size_bytes > 0]):
            taken.append(choice)
            left = {d: size_bytes - choice.frees.get(d, 0) for d, size_bytes in left.items()}
    if any(size_bytes > 0 for size_bytes in left.values()):
        return None
    for choice in reversed(taken):
        without = {d: size_bytes + choice.frees.get(d, 0) for d, size_bytes in left.items()}
        if all(size_bytes <= 0 for size_bytes in without.values()):
            taken = [other for other in taken if other is not choice]
            left = without
    return taken


def _helps(choice: Choice, devices: Sequence[str]) -> bool:
    return any(choice.frees.get(device, 0) > 0 for device in devices)


def _rank(choice: Choice) -> tuple[str, int, float, list[tuple[str, int]]]:
    return choice.owner, _ORDER[choice.act], choice.cost, sorted(choice.frees.items())


def _prices(choices: Sequence[Choice]) -> list[int]:
    """Cost, count, bytes and rank in one number each, so that the cheapest sum is the one wanted.

    Each part has the bits that its largest sum needs; a cost is counted in steps. The rank is a bit
    of its own: of two sets alike in all else, the one with the first choice that is not in both has
    the smaller sum.
    """
    assert all(math.isfinite(c.cost) and c.cost >= 0 for c in choices), "a cost is finite"
    sizes = [sum(c.frees.values()) for c in choices]
    num = len(choices)
    count_bits, size_bits = num.bit_length(), sum(sizes).bit_length()
    return [
        (((round(choice.cost * COST_STEPS) << count_bits | 1) << size_bits | size_bytes) << num)
        - (1 << num - 1 - rank)
        for rank, (choice, size_bytes) in enumerate(zip(choices, sizes, strict=True))
    ]
