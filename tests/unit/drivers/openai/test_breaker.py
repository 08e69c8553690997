from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos.abi.remote import Breaking
from llmos.drivers.openai.breaker import Breaker, Circuit

CONFIG = Breaking(failures=3, open_s=10.0)


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker(CONFIG)
    for _ in range(3):
        breaker.failed(now_s, breaker.begin(now_s))
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = Breaker(CONFIG)
    for outcome in "ff+ff":
        probe = breaker.begin(0.0)
        assert probe is False
        breaker.succeeded(probe) if outcome == "+" else breaker.failed(0.0, probe)
        assert breaker.state(0.0) is Circuit.CLOSED
    breaker.failed(0.0, breaker.begin(0.0))
    assert (breaker.state(0.0), breaker.wait_s(4.0)) == (Circuit.OPEN, 6.0)


def test_one_request_tries_when_it_is_half_open() -> None:
    breaker = opened()
    assert breaker.wait_s(9.9) > 0
    assert (breaker.state(10.0), breaker.wait_s(10.0)) == (Circuit.HALF_OPEN, 0.0)
    assert breaker.begin(10.0) is True
    assert breaker.wait_s(10.0) > 0  # nobody else
    breaker.succeeded(True)
    assert (breaker.state(10.0), breaker.wait_s(10.0)) == (Circuit.CLOSED, 0.0)


def test_a_failed_try_opens_it_again() -> None:
    breaker = opened()
    breaker.failed(12.0, breaker.begin(12.0))
    assert (breaker.state(12.0), breaker.wait_s(12.0)) == (Circuit.OPEN, 10.0)


def test_a_try_that_was_dropped_is_free_again() -> None:
    breaker = opened()
    breaker.dropped(breaker.begin(10.0))
    assert breaker.wait_s(10.0) == 0.0


def test_an_answer_from_before_does_not_close_it() -> None:
    breaker = Breaker(CONFIG)
    old = breaker.begin(0.0)
    for _ in range(3):
        breaker.failed(0.0, breaker.begin(0.0))
    breaker.succeeded(old)
    assert breaker.state(0.0) is Circuit.OPEN


def test_it_is_left_alone_as_long_as_it_asks() -> None:
    breaker = Breaker(CONFIG)
    breaker.hold(5.0, 30.0)
    breaker.hold(5.0, 1.0)
    assert (breaker.state(5.0), breaker.wait_s(6.0)) == (Circuit.CLOSED, 29.0)
    assert breaker.wait_s(35.0) == 0.0


@given(st.lists(st.tuples(st.sampled_from("+-.h"), st.floats(0, 20)), max_size=60))
def test_it_always_lets_somebody_in_again(steps: list[tuple[str, float]]) -> None:
    """Whatever happens: at most one probe at a time, and a finite wait."""
    breaker, now_s = Breaker(CONFIG), 0.0
    for outcome, later_s in steps:
        now_s += later_s
        if breaker.wait_s(now_s):
            continue
        probe = breaker.begin(now_s)
        assert not probe or breaker.wait_s(now_s) > 0
        if outcome == "+":
            breaker.succeeded(probe)
        elif outcome == "-":
            breaker.failed(now_s, probe)
        elif outcome == "h":
            breaker.hold(now_s, 3.0)
            breaker.dropped(probe)
        else:
            breaker.dropped(probe)
    rounding_s = 1e-9  # of sums of times
    assert breaker.wait_s(now_s) <= 10.0 + rounding_s
    assert breaker.wait_s(now_s + 10.0 + rounding_s) == 0.0
