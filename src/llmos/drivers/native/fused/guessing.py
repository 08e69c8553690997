"""Guesses at what comes next, which the model then draws itself: kept where they are the same.

A guess costs a row of a step, and whatever its maker takes. It never changes an answer: a row's
bits depend on the tokens before it alone, and token `i` of a request is drawn with the uniform
number `i` of its seed, guessed at or not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from llmos.drivers.native.request import Request

RETRY_EVERY = 16
"""Draws after which what did not pay is tried again."""

_RETRY_AT_LEAST_EVERY = 256

_HOPEFUL = 0.5
_WEIGHT = 0.2
_LEAST = 0.2
"""Of guesses so many must have been right, of late, for another one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """Whose next tokens to guess, and how many at most: at least one."""

    request: Request
    count: int


class Guesser(Protocol):
    """Who makes guesses, for all requests of a runner."""

    def guess(self, asks: Sequence[Ask], room: int, speeds: Speeds) -> list[list[int]]:
        """What may follow, for each of them, `room` tokens in all; empty: no idea."""
        ...

    def note(self, request: Request, num_guessed: int, num_right: int) -> None:
        """How a guess of `num_guessed` tokens went."""
        ...

    def forget(self, request: Request) -> None:
        """It has left."""
        ...


class Patience:
    """When to try again what did not pay: after some draws, after twice as many the next time."""

    __slots__ = ("_after", "_num_idle")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """It pays."""
        self._after, self._num_idle = RETRY_EVERY, 0

    def tries(self) -> bool:
        """Asked once for every draw."""
        self._num_idle += 1
        if self._num_idle < self._after:
            return False
        self._after, self._num_idle = min(2 * self._after, _RETRY_AT_LEAST_EVERY), 0
        return True


class Hope:
    """How often one request's guesses were right, each taken for itself: `rate`, at first as that
    of others."""

    __slots__ = ("_patience", "rate")

    def __init__(self, rate: float = _HOPEFUL) -> None:
        self.rate = rate
        self._patience = Patience()

    @property
    def is_low(self) -> bool:
        """Then it is tried now and then only."""
        return self.rate < _LEAST

    def tries(self) -> bool:
        """Asked once for every draw."""
        return not self.is_low or self._patience.tries()

    def note(self, num_guessed: int, num_right: int) -> None:
        """Behind the first wrong one nobody looked."""
        for number in range(min(num_guessed, num_right + 1)):
            self.rate += _WEIGHT * ((number < num_right) - self.rate)
        if not self.is_low:
            self._patience.reset()

    def expected(self, num_guessed: int) -> float:
        """Tokens that a step with so many guesses brings."""
        return sum(self.rate**number for number in range(num_guessed + 1))


class Speeds:
    """How long steps take, by their number of rows, as far as that was seen: smoothed, seconds."""

    def __init__(self) -> None:
        self._took_s: dict[int, float] = {}

    def note(self, num_rows: int, took_s: float) -> None:
        """Of a step that did nothing but draw."""
        before = self._took_s.get(num_rows, took_s)
        self._took_s[num_rows] = before + _WEIGHT * (took_s - before)

    def expected_s(self, num_rows: int) -> float | None:
        """On the line between the nearest that were seen; flat beyond them. None: none was."""
        below = [n for n in self._took_s if n <= num_rows]
        above = [n for n in self._took_s if n >= num_rows]
        if not below or not above:
            nearest = max(below) if below else min(above, default=0)
            return self._took_s.get(nearest)
        low, high = max(below), min(above)
        if low == high:
            return self._took_s[low]
        share = (num_rows - low) / (high - low)
        return self._took_s[low] + share * (self._took_s[high] - self._took_s[low])
