"""Arms that are measured one after another: no one of them always first, or last."""

from __future__ import annotations

from benchmarks.train.traffic import ARMS, order


def test_every_arm_is_at_every_place_as_often() -> None:
    number = len(ARMS)
    found = list(order(2 * number))
    rounds = [found[at : at + number] for at in range(0, len(found), number)]
    assert all(sorted(one) == sorted(ARMS) for one in rounds)
    for place in range(number):
        assert sorted(one[place] for one in rounds) == sorted(ARMS * 2)
