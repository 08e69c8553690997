"""The ledger of a device: what it holds is the sum of its entries, and fits unless it swelled."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmos.kernel.core.ledger import Ledger

BUDGET = 20


def test_the_life_of_an_entry() -> None:
    ledger = Ledger(10)
    assert (ledger.free_bytes, ledger.reserved_bytes, ledger.holds("a")) == (10, 0, 0)
    ledger.reserve("a", 8)
    assert ledger.shrink("a", 5) == 5
    assert ledger.shrink("a", 9) == 5  # an estimate only shrinks
    ledger.reserve("b", 5)
    assert dict(ledger.owners()) == {"a": 5, "b": 5}
    assert ledger.shrink("a", 1) == 1  # parked
    ledger.grow("a", 5)
    assert ledger.free_bytes == 0
    assert ledger.release("a") == 5
    assert (ledger.free_bytes, ledger.reserved_bytes, ledger.holds("a")) == (5, 5, 0)


def test_whoever_does_not_look_first_is_stopped() -> None:
    ledger = Ledger(10)
    ledger.reserve("a", 8)
    with pytest.raises(AssertionError, match="over-commit"):
        ledger.reserve("b", 3)
    with pytest.raises(AssertionError, match="reserved twice"):
        ledger.reserve("a", 1)
    with pytest.raises(AssertionError, match="over-commit"):
        ledger.reserve("b", -1)
    with pytest.raises(AssertionError, match="over-commit"):
        ledger.grow("a", 11)
    with pytest.raises(AssertionError, match="grows to less"):
        ledger.grow("a", 7)
    with pytest.raises(AssertionError):
        ledger.shrink("a", -1)
    with pytest.raises(KeyError):
        ledger.release("b")
    assert dict(ledger.owners()) == {"a": 8}


def test_what_is_measured_above_the_bound_is_recorded() -> None:
    ledger = Ledger(10)
    ledger.reserve("a", 4)
    ledger.reserve("b", 4)
    assert ledger.swell("a", 6) == 0
    assert ledger.swell("b", 7) == 3
    assert (ledger.free_bytes, ledger.reserved_bytes) == (-3, 13)
    assert ledger.swell("b", 5) == 3  # less than it holds is no news
    with pytest.raises(AssertionError, match="over-commit"):
        ledger.reserve("c", 0)
    ledger.grow("a", 6)  # by nothing, which would not fit either
    assert ledger.shrink("b", 2) == 2
    assert ledger.free_bytes == 2


def test_an_entry_of_nothing_is_an_entry() -> None:
    ledger = Ledger(0)
    ledger.reserve("a", 0)
    assert dict(ledger.owners()) == {"a": 0}
    assert ledger.release("a") == 0


class LedgerMachine(RuleBasedStateMachine):
    """Beside a dict that is added up anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(BUDGET)
        self.model: dict[str, int] = {}
        self.swelled = False

    @property
    def free(self) -> int:
        return BUDGET - sum(self.model.values())

    def pick(self, index: int) -> str:
        return sorted(self.model)[index % len(self.model)]

    @rule(owner=st.sampled_from("abcdef"), size=st.integers(0, BUDGET))
    def reserve(self, owner: str, size: int) -> None:
        if owner in self.model or size > self.free:
            with pytest.raises(AssertionError):
                self.ledger.reserve(owner, size)
        else:
            self.ledger.reserve(owner, size)
            self.model[owner] = size

    @precondition(lambda self: self.model)
    @rule(index=st.integers(0, 9), size=st.integers(0, BUDGET))
    def shrink(self, index: int, size: int) -> None:
        owner = self.pick(index)
        self.model[owner] = min(self.model[owner], size)
        assert self.ledger.shrink(owner, size) == self.model[owner]

    @precondition(lambda self: self.model)
    @rule(index=st.integers(0, 9), size=st.integers(0, BUDGET))
    def grow(self, index: int, size: int) -> None:
        owner = self.pick(index)
        more = size - self.model[owner]
        if more < 0 or (more and more > self.free):
            with pytest.raises(AssertionError):
                self.ledger.grow(owner, size)
        else:
            self.ledger.grow(owner, size)
            self.model[owner] = size

    @precondition(lambda self: self.model)
    @rule(index=st.integers(0, 9), size=st.integers(0, BUDGET))
    def swell(self, index: int, size: int) -> None:
        owner = self.pick(index)
        self.model[owner] = max(self.model[owner], size)
        assert self.ledger.swell(owner, size) == max(0, -self.free)
        self.swelled = self.swelled or self.free < 0

    @precondition(lambda self: self.model)
    @rule(index=st.integers(0, 9))
    def release(self, index: int) -> None:
        owner = self.pick(index)
        assert self.ledger.release(owner) == self.model.pop(owner)

    @invariant()
    def adds_up(self) -> None:
        assert dict(self.ledger.owners()) == self.model
        assert self.ledger.reserved_bytes == sum(self.model.values())
        assert self.ledger.free_bytes == self.free
        assert self.swelled or self.free >= 0
        assert all(self.ledger.holds(o) == self.model.get(o, 0) for o in "abcdef")


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase
