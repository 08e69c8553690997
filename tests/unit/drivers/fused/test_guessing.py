"""Who is worth a guess, and how long steps are taken to be."""

from __future__ import annotations

import pytest

from llmos.drivers.native.fused.guessing import RETRY_EVERY, Hope, Speeds
from llmos.drivers.native.fused.lookup import Lookup


def test_hope_falls_with_wrong_guesses_and_is_tried_again() -> None:
    hope = Hope()
    assert hope.tries()
    for _ in range(8):
        hope.note(4, 0)
    assert hope.is_low
    tried = [number for number in range(1, 7 * RETRY_EVERY + 1) if hope.tries()]
    assert tried == [RETRY_EVERY, 3 * RETRY_EVERY, 7 * RETRY_EVERY]  # ever more rarely
    for _ in range(3):
        hope.note(4, 4)
    assert not hope.is_low and hope.tries()
    for _ in range(9):
        hope.note(4, 0)
    assert [hope.tries() for _ in range(RETRY_EVERY)].count(True) == 1  # patience is new
    assert Hope(0.1).is_low


def test_behind_the_first_wrong_guess_nobody_looked() -> None:
    far, near = Hope(), Hope()
    far.note(8, 1)
    near.note(2, 1)
    assert far.rate == near.rate


def test_expected_tokens() -> None:
    hope = Hope()
    assert hope.expected(0) == 1
    assert hope.expected(2) == pytest.approx(1 + 0.5 + 0.25)


def test_speeds_between_what_was_seen() -> None:
    speeds = Speeds()
    assert speeds.expected_s(3) is None
    speeds.note(1, 1.0)
    speeds.note(5, 3.0)
    assert speeds.expected_s(1) == 1.0
    assert speeds.expected_s(3) == pytest.approx(2.0)
    assert speeds.expected_s(8) == 3.0
    speeds.note(5, 8.0)
    assert speeds.expected_s(5) == pytest.approx(4.0)
    late = Speeds()
    late.note(4, 2.0)
    assert late.expected_s(1) == 2.0


def test_lookup_finds_the_last_place_and_not_itself() -> None:
    lookup = Lookup()
    prompt = [1, 2, 3, 4, 9, 1, 2, 3, 5, 6]
    lookup.index(prompt, [])
    assert lookup.find(4) == []
    lookup.index(prompt, [1, 2])
    assert lookup.find(4) == []
    lookup.index(prompt, [1, 2, 3])
    assert lookup.find(2) == [5, 6]
    assert lookup.find(9) == [5, 6, 1, 2, 3]
    short = Lookup()
    short.index([1], [1])
    assert short.find(4) == []
    short.index([1], [1, 1, 1])
    assert short.find(4) == [1]
