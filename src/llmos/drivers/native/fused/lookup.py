"""Guesses at what comes next: what came after the same few tokens before (prompt lookup decoding).

A guess costs a row of a step; whoever's guesses fail makes fewer of them.
"""

from __future__ import annotations

from llmos.drivers.native.limits import LIMITS

_HOPEFUL = 0.5
_WEIGHT = 0.2
_LEAST = 0.15
"""Of guessed tokens so many must have been right, of late, for another guess."""

_RETRY_EVERY = 16
"""Draws after which somebody whose guesses failed may guess again."""


class Lookup:
    """Of one request: where each run of `draft_match` tokens was last followed by what."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        self._num_indexed = 0
        self._rate = _HOPEFUL
        self._num_idle = 0

    def guess(self, prompt: list[int], generated: list[int], count: int) -> list[int]:
        """At most `count` tokens that may follow; none where nothing like it was there."""
        match, num_prompt = LIMITS.draft_match, len(prompt)
        total = num_prompt + len(generated)

        def at(begin: int, end: int) -> list[int]:
            if begin >= num_prompt:
                return generated[begin - num_prompt : end - num_prompt]
            return (prompt[begin:end] + generated[: max(0, end - num_prompt)])[: end - begin]

        if total <= match:
            return []
        # everything but the last run is indexed: it must not find itself
        for end in range(max(match, self._num_indexed + 1), total):
            self._places[tuple(at(end - match, end))] = end
        self._num_indexed = total - 1
        if self._rate < _LEAST:
            self._num_idle += 1
            if self._num_idle < _RETRY_EVERY:
                return []
            self._num_idle = 0
        place = self._places.get(tuple(at(total - match, total)))
        return [] if place is None else at(place, min(total, place + count))

    def note(self, num_guessed: int, num_right: int) -> None:
        """How a guess went."""
        self._rate += _WEIGHT * (num_right / num_guessed - self._rate)
