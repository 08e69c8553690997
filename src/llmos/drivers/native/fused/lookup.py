"""Guesses from what was there before: what came after the same few tokens (prompt lookup)."""

from __future__ import annotations

from collections.abc import Sequence

from llmos.drivers.native.fused.guessing import Ask, Hope, Speeds
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.request import Request


class Lookups:
    """`Guesser` that needs no model."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Lookup, Hope]] = {}

    def guess(self, asks: Sequence[Ask], room: int, speeds: Speeds) -> list[list[int]]:
        """First come, first served."""
        guesses = []
        for ask in asks:
            request = ask.request
            lookup, hope = self._of.setdefault(request.request_id, (Lookup(), Hope()))
            lookup.index(request.prompt, request.generated)
            count = min(ask.count, room)
            found = lookup.find(count) if count and hope.tries() else []
            room -= len(found)
            guesses.append(found)
        return guesses

    def note(self, request: Request, num_guessed: int, num_right: int) -> None:
        """See `Guesser`."""
        self._of[request.request_id][1].note(num_guessed, num_right)

    def forget(self, request: Request) -> None:
        """See `Guesser`."""
        self._of.pop(request.request_id, None)


class Lookup:
    """Of one request: where each run of `draft_match` tokens was last followed by what."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        self._tokens: list[int] = []

    def index(self, prompt: list[int], generated: list[int]) -> None:
        """Its tokens, which have only become more."""
        match, tokens = LIMITS.draft_match, self._tokens
        if not tokens:
            tokens += prompt
            self._note_places(match, len(tokens))
        before = len(tokens)
        tokens += generated[before - len(prompt) :]
        self._note_places(max(match, before), len(tokens))

    def _note_places(self, begin: int, end: int) -> None:
        """Everything but the last run: it must not find itself."""
        for place in range(begin, end):
            self._places[tuple(self._tokens[place - LIMITS.draft_match : place])] = place

    def find(self, count: int) -> list[int]:
        """At most `count` tokens that may follow; none where nothing like it was there."""
        if len(self._tokens) < LIMITS.draft_match:
            return []
        place = self._places.get(tuple(self._tokens[-LIMITS.draft_match :]))
        return [] if place is None else self._tokens[place : place + count]
