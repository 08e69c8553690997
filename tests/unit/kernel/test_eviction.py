"""Who goes first by which rule."""

from __future__ import annotations

import itertools

import pytest

from llmos.kernel.core.eviction import Eviction, Idle, cost_of, rank_of
from llmos.kernel.core.room import Act, Choice, plan_in_order, plan_room

S = 10**9
#           owner  bytes  reload  wanted  idle since  keep-alive
OLD = Idle("old", 10, 8.0 * S, 0.5, 1 * S, 300 * S)
BIG = Idle("big", 40, 20.0 * S, 0.1, 5 * S, 300 * S)
BRIEF = Idle("brief", 5, 1.0 * S, 0.9, 9 * S, 60 * S)
FOREVER = Idle("forever", 20, 4.0 * S, 0.0, 3 * S, -1)
ALL = (OLD, BIG, BRIEF, FOREVER)


@pytest.mark.parametrize(
    ("eviction", "order"),
    [
        (Eviction.COST, [FOREVER, BIG, BRIEF, OLD]),  # 0, 0.05, 0.18 and 0.4 s a byte
        (Eviction.LRU, [OLD, FOREVER, BIG, BRIEF]),
        (Eviction.KEEP_ALIVE, [BRIEF, OLD, BIG, FOREVER]),
    ],
)
def test_the_order_of_each_rule(eviction: Eviction, order: list[Idle]) -> None:
    for mixed in itertools.permutations(ALL):
        assert sorted(mixed, key=lambda idle: rank_of(idle, eviction)) == order


@pytest.mark.parametrize("eviction", Eviction)
def test_equals_go_by_name(eviction: Eviction) -> None:
    a, b = Idle("a", 1, 2.0, 0.5, 3, 4), Idle("b", 1, 2.0, 0.5, 3, 4)
    assert rank_of(a, eviction) < rank_of(b, eviction)


def test_a_cost_is_the_work_expected() -> None:
    assert [cost_of(idle) for idle in ALL] == [4.0 * S, 2.0 * S, 0.9 * S, 0.0]


def test_an_owner_of_nothing_has_a_rank() -> None:
    assert rank_of(Idle("a", 0, 2.0, 0.5, 3, 4), Eviction.COST) == (1.0, 3, "a")


def test_the_rules_disagree_where_they_should() -> None:
    def stop(idle: Idle) -> Choice:
        return Choice(idle.owner, Act.STOP, {"host": idle.size_bytes}, cost_of(idle))

    missing = {"host": 15}
    cheapest = plan_room(missing, [[stop(idle)] for idle in ALL])
    assert cheapest == [stop(FOREVER)]
    for eviction, owners in ((Eviction.LRU, ["forever"]), (Eviction.KEEP_ALIVE, ["brief", "old"])):
        ordered = sorted(ALL, key=lambda idle: rank_of(idle, eviction))
        plan = plan_in_order(missing, [stop(idle) for idle in ordered])
        assert plan is not None
        assert [choice.owner for choice in plan] == owners
