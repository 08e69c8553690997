"""Work in turns: one at a time, to the next pause at least, and to an end in any case."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest

from llmos.drivers.native.turns import Turns, pause

LONG_AGO = -math.inf


def counting(log: list[int], times: int) -> Callable[[], int]:
    def work() -> int:
        for number in range(times):
            log.append(number)
            pause()
        return times

    return work


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "turns"]


def test_it_goes_on_pause_by_pause() -> None:
    log: list[int] = []
    turns = Turns(counting(log, 3))
    assert log == []
    assert [turns.go_on(LONG_AGO) for _ in range(4)] == [False, False, False, True]
    assert (log, turns.result(), turns.go_on(LONG_AGO)) == ([0, 1, 2], 3, True)


def test_it_goes_on_while_there_is_time() -> None:
    turns = Turns(counting([], 1000))
    assert turns.go_on(math.inf)
    assert turns.result() == 1000


def test_an_error_is_its_callers() -> None:
    def work() -> None:
        pause()
        raise ValueError("bad")

    turns = Turns(work)
    assert not turns.go_on(LONG_AGO)
    assert turns.go_on(LONG_AGO)
    with pytest.raises(ValueError, match="bad"):
        turns.result()


def test_whoever_is_forgotten_leaves_no_thread() -> None:
    log: list[int] = []
    begun, waiting = Turns(counting(log, 100)), Turns(counting(log, 100))
    begun.go_on(LONG_AGO)
    there = threads()
    assert len(there) == 2
    del begun, waiting
    for thread in there:
        thread.join(10)
        assert not thread.is_alive()
    assert log == [0]


def test_pausing_elsewhere_is_nothing() -> None:
    pause()
