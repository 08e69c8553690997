"""Reading an answer for calls of tools, as it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmos.shapes.toolcalls.parsers import PARSERS
from llmos.shapes.toolcalls.reader import Begin, Reader, Text


@dataclass(slots=True)
class CallDelta:
    """More of call number `index`: where it begins, `name` is its tool's."""

    index: int
    name: str | None = None
    arguments: str = ""


class Said(NamedTuple):
    """What some of an answer came to."""

    text: str
    calls: list[CallDelta]


class ToolReader:
    """Push the answer in, in any pieces: joined, what comes out does not depend on them.

    `most`: calls beyond so many are dropped.
    """

    def __init__(self, form: str, names: Iterable[str], most: int | None = None) -> None:
        self._reader = Reader()
        self._parse = PARSERS[form](self._reader, frozenset(names))
        self._most = most
        self._is_over = False
        self._has_text = False
        self.num_calls = 0
        self.num_before = 0
        """Calls that began before the first text did."""

    def push(self, text: str) -> Said:
        """What is certain now."""
        self._reader.push(text)
        return self._run()

    def finish(self) -> Said:
        """The rest."""
        self._reader.is_closed = True
        return self._run()

    @property
    def _num_told(self) -> int:
        return self.num_calls if self._most is None else min(self.num_calls, self._most)

    def _run(self) -> Said:
        texts: list[str] = []
        calls: list[CallDelta] = []
        while not self._is_over:
            try:
                piece = next(self._parse)
            except StopIteration:
                self._is_over = True
                break
            if piece is None:
                break
            if isinstance(piece, Text):
                if not self._has_text:
                    self._has_text, self.num_before = True, self._num_told
                texts.append(piece.text)
                continue
            if isinstance(piece, Begin):
                self.num_calls += 1
            index = self.num_calls - 1
            if self._most is not None and index >= self._most:
                continue
            if isinstance(piece, Begin):
                calls.append(CallDelta(index, piece.name))
            elif calls and calls[-1].index == index:
                calls[-1].arguments += piece.text
            else:
                calls.append(CallDelta(index, None, piece.text))
        return Said("".join(texts), calls)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request says about its tools, as far as its answer is concerned.

    `as_function`: its one call is told as `function_call`, as calls were before there were tools.
    """

    names: tuple[str, ...] = ()
    most: int | None = None
    as_function: bool = False

    def reader(self, form: str) -> ToolReader | None:
        """None where no calls are looked for."""
        return ToolReader(form, self.names, self.most) if form and self.names else None


@dataclass(slots=True)
class Call:
    """A whole one. `arguments` is JSON, if the model wrote such."""

    name: str
    arguments: str = ""


@dataclass(slots=True)
class Heard:
    """A whole answer. `num_before`: calls that began before its text did."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    num_before: int = 0

    def add(self, said: Said) -> None:
        """More of it."""
        self.text += said.text
        for delta in said.calls:
            if delta.name is not None:
                self.calls.append(Call(delta.name))
            self.calls[delta.index].arguments += delta.arguments


def hear(text: str, form: str, wanted: Wanted) -> Heard:
    """The whole answer at once."""
    reader = wanted.reader(form)
    if reader is None:
        return Heard(text)
    heard = Heard()
    heard.add(reader.push(text))
    heard.add(reader.finish())
    heard.num_before = reader.num_before
    return heard


def call_id(request_id: str, index: int, form: str) -> str:
    """The same whenever the answer is told. Templates of Mistral's want nine characters."""
    digest = hashlib.blake2b(f"{request_id}:{index}".encode(), digest_size=12).hexdigest()
    return digest[:9] if form == "mistral" else "call_" + digest


def call_object(call: Call, name: str) -> dict[str, Any]:
    """As a message has it; `name` is its id."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": name, "type": "function", "function": function}
