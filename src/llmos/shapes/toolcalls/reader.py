"""A text that arrives in pieces, read as if it were whole.

Parsers are generators over a `Reader`: they yield what they have found, or None when all that has
arrived is used up. What they find depends on the text alone, never on where it was cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

MAX_NAME_CHARS = 256

MAX_REREAD_CHARS = 1 << 18
"""Characters that were read as a call which was none, and had to be read again. A text that makes
more of them, by one marker after the other, is no answer with calls: its rest is text.
"""


class Text(NamedTuple):
    """Part of the answer itself."""

    text: str


class Begin(NamedTuple):
    """A call of this tool; what follows are its arguments."""

    name: str


class Arguments(NamedTuple):
    """More of the call's arguments, as JSON."""

    text: str


Piece = Text | Begin | Arguments
Parse = Generator[Piece | None, None, T]

_SPACE = " \t\r\n"
_SCALAR = re.compile(r"[^\s,;\]}]*")


class Reader:
    """The text from `at` on has not been taken yet."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.is_closed = False
        self._mark: int | None = None
        self._num_reread = 0

    def push(self, text: str) -> None:
        """More has arrived."""
        done = self.at if self._mark is None else self._mark
        if done:
            self.text = self.text[done:]
            self.at -= done
            self._mark = None if self._mark is None else 0
        self.text += text

    def mark(self) -> None:
        """Here it may have to begin again."""
        self._mark = self.at

    def back(self) -> None:
        """To where the mark is."""
        assert self._mark is not None
        self._num_reread += self.at - self._mark
        self.at = self._mark

    @property
    def is_tired(self) -> bool:
        """It has begun again for long enough."""
        return self._num_reread > MAX_REREAD_CHARS

    def keep(self) -> None:
        """It will not have to."""
        self._mark = None

    def peek(self, count: int) -> Parse[str]:
        """The next so many characters, fewer at the end only."""
        while len(self.text) - self.at < count and not self.is_closed:
            yield None
        return self.text[self.at : self.at + count]

    def skip(self, count: int) -> bool:
        """Take so many that were looked at. True."""
        self.at += count
        return True

    def skip_space(self) -> Parse[str]:
        """The next character after white space, which is not taken; empty at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if self.is_closed:
                return ""
            yield None

    def take(self, wanted: str) -> Parse[bool]:
        """Take exactly this, if it comes next."""
        for length in range(1, len(wanted) + 1):
            found = yield from self.peek(length)
            if found != wanted[:length]:
                return False
        self.at += len(wanted)
        return True

    def until(self, ends: Sequence[str], most: int = MAX_NAME_CHARS) -> Parse[str | None]:
        """What comes before the first of `ends`, none of which is taken; None where that is not
        among the next `most` characters."""
        while True:
            rest = self.text[self.at : self.at + most]
            found = [at for end in ends if (at := rest.find(end)) >= 0]
            # an end that is not whole yet may begin before one that is
            if found and not any(_overlap(rest[: min(found)], end) for end in ends):
                taken = rest[: min(found)]
                self.at += len(taken)
                return taken
            if self.is_closed or len(rest) >= most:
                return None
            yield None

    def say_until(self, markers: Sequence[str]) -> Parse[tuple[str, str] | None]:
        """Text as it comes, up to the first of `markers`, which is taken: it, with the white space
        before it. None at the end."""
        while True:
            rest = self.text[self.at :]
            found = [(at, -len(marker)) for marker in markers if (at := rest.find(marker)) >= 0]
            if found:
                at, length = min(found)
                before = rest[:at]
                said = before.rstrip(_SPACE)
                if said:
                    yield Text(said)
                self.at += at - length
                return rest[at : at - length], before[len(said) :]
            if self.is_closed:
                if rest:
                    yield Text(rest)
                self.at = len(self.text)
                return None
            kept = max((_overlap(rest, marker) for marker in markers), default=0)
            said = rest[: len(rest) - kept].rstrip(_SPACE)
            if said:
                self.at += len(said)
                yield Text(said)
            yield None

    def value(self) -> Parse[bool]:
        """A JSON value as `Arguments`, as it is written. False: the text ended inside it."""
        first = yield from self.skip_space()
        if first in ("{", "["):
            return (yield from self._nested())
        if first == '"':
            text = yield from self.string()
            if text is not None:
                yield Arguments(json.dumps(text, ensure_ascii=False))
            return text is not None
        scalar = yield from self.scalar()
        if scalar:
            yield Arguments(scalar)
        return bool(scalar)

    def scalar(self) -> Parse[str]:
        """A number, true, false or null, not checked."""
        made = ""
        while True:
            match = _SCALAR.match(self.text, self.at)
            assert match is not None
            made += match[0]
            self.at = match.end()
            if self.at < len(self.text) or self.is_closed:
                return made
            yield None

    def string(self) -> Parse[str | None]:
        """A JSON string, which comes next, as what it says. None: it is none."""
        if not (yield from self.take('"')):
            return None
        raw = yield from self._string_end('"')
        if raw is None:
            return None
        try:
            found: str = json.loads(f'"{raw}"', strict=False)
        except ValueError:
            return None
        return found

    def _string_end(self, quote: str) -> Parse[str | None]:
        """The rest of a string up to its quote, taken too; escapes as they are."""
        at, escaped = 0, False
        while True:
            rest = self.text[self.at :]
            for at in range(at, len(rest)):  # noqa: B020 (it goes on where it was)
                if escaped:
                    escaped = False
                elif rest[at] == quote:
                    self.at += at + 1
                    return rest[:at]
                else:
                    escaped = rest[at] == "\\"
            if self.is_closed:
                return None
            at = len(rest)
            yield None

    def _nested(self) -> Parse[bool]:
        """An object or a list, to its end."""
        depth, in_string, escaped = 0, False, False
        while True:
            begin = self.at
            while self.at < len(self.text):
                char = self.text[self.at]
                self.at += 1
                if escaped:
                    escaped = False
                elif in_string:
                    in_string, escaped = char != '"', char == "\\"
                elif char == '"':
                    in_string = True
                elif char in "{[":
                    depth += 1
                elif char in "}]":
                    depth -= 1
                    if depth == 0:
                        yield Arguments(self.text[begin : self.at])
                        return True
            if self.at > begin:
                yield Arguments(self.text[begin:])
            if self.is_closed:
                return False
            yield None


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that is a beginning of `marker`."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0


def whole(parse: Parse[Any]) -> Parse[tuple[str, Any]]:
    """What a parse of a value finds, in one piece, and what it returns."""
    made: list[str] = []
    while True:
        try:
            piece = next(parse)
        except StopIteration as end:
            return "".join(made), end.value
        if piece is None:
            yield None
        elif isinstance(piece, Arguments):
            made.append(piece.text)
